# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How much of a period servers were there, from their launch to their end."""

from __future__ import annotations

import dataclasses
import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.compute import Server


@dataclasses.dataclass(frozen=True)
class Period:
    """From one moment to another, naive UTC."""

    start: datetime.datetime
    stop: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Use:
    """A server and the hours that it was there within a period."""

    server: Server
    hours: float


def of_period(
    session: Session,
    period: Period,
    *,
    project_id: str | None,
    marker: str | None = None,
    limit: int | None = None,
) -> list[Use]:
    """Return the servers that were there in a period, in the order of their creation, deleted ones too.

    :param project_id: whose; None for everybody's
    :param marker: uuid of the last server of the page before
    :raises accelsched.errors.InvalidError: when there is no such marker
    """
    query = select(Server).where(
        Server.launched_at < period.stop, or_(Server.deleted_at.is_(None), Server.deleted_at > period.start)
    )
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
    if marker is not None:
        last = session.scalar(select(Server.id).where(Server.uuid == marker))
        if last is None:
            raise errors.InvalidError(f"marker [{marker[:100]}] not found")
        query = query.where(Server.id > last)
    query = query.order_by(Server.id)
    found = session.scalars(query if limit is None else query.limit(limit))
    return [Use(server, hours(server.launched_at, server.deleted_at, period)) for server in found]


def hours(launched_at: datetime.datetime | None, ended_at: datetime.datetime | None, period: Period) -> float:
    """Return how many hours of a period lie between a launch and an end; None has not happened yet."""
    if launched_at is None:
        return 0.0
    stop = period.stop if ended_at is None else min(ended_at, period.stop)
    return max(stop - max(launched_at, period.start), datetime.timedelta()).total_seconds() / 3600
