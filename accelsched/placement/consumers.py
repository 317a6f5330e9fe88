# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Consumers: who holds allocations."""

from __future__ import annotations

import dataclasses

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched.db.placement import Consumer

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
"""Project and user of a consumer whose allocations were written before Placement 1.8 asked for them."""

UNKNOWN_TYPE = "unknown"
"""How a consumer without a type is shown."""


@dataclasses.dataclass(frozen=True)
class ConsumerView:
    """A consumer as it is shown."""

    id: int
    uuid: str
    project_id: str
    user_id: str
    consumer_type: str
    generation: int


def get(session: Session, uuid: str) -> ConsumerView | None:
    """Return a consumer, None when none of this uuid was ever seen."""
    row = session.execute(
        select(
            Consumer.id,
            Consumer.uuid,
            Consumer.project_id,
            Consumer.user_id,
            Consumer.consumer_type,
            Consumer.generation,
        ).where(Consumer.uuid == uuid)
    ).one_or_none()
    if row is None:
        return None
    return ConsumerView(row[0], row[1], row[2], row[3], row[4] or UNKNOWN_TYPE, row[5])
