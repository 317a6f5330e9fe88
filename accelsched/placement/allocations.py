# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Allocations, read by consumer and by provider. They are written by :mod:`accelsched.placement.claims` alone."""

from __future__ import annotations

import dataclasses
import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.placement import Allocation, Consumer, ResourceClass, ResourceProvider
from accelsched.placement import claims, consumers
from accelsched.placement.consumers import ConsumerView


@dataclasses.dataclass
class ProviderShare:
    """What a consumer holds from one provider."""

    generation: int
    resources: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ConsumerHoldings:
    """All that a consumer holds, by provider uuid."""

    consumer: ConsumerView | None
    shares: dict[str, ProviderShare]
    updated_at: datetime.datetime | None


@dataclasses.dataclass
class ConsumerShare:
    """What one consumer holds from a provider."""

    generation: int
    resources: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ProviderHoldings:
    """All that is held from a provider, by consumer uuid."""

    shares: dict[str, ConsumerShare]
    updated_at: datetime.datetime | None


def of_consumer(session: Session, consumer_uuid: str) -> ConsumerHoldings:
    """Return what a consumer holds; nothing for one never heard of."""
    consumer = consumers.get(session, consumer_uuid)
    shares: dict[str, ProviderShare] = {}
    newest: datetime.datetime | None = None
    if consumer is not None:
        rows = session.execute(
            select(
                ResourceProvider.uuid,
                ResourceProvider.generation,
                ResourceClass.name,
                Allocation.used,
                Allocation.updated_at,
            )
            .join(ResourceProvider, ResourceProvider.id == Allocation.provider_id)
            .join(ResourceClass, ResourceClass.id == Allocation.class_id)
            .where(Allocation.consumer_id == consumer.id)
            .order_by(Allocation.provider_id, Allocation.class_id)
        )
        for uuid, generation, name, used, updated_at in rows:
            shares.setdefault(uuid, ProviderShare(generation)).resources[name] = used
            newest = updated_at if newest is None else max(newest, updated_at)
    return ConsumerHoldings(consumer, shares, newest)


def of_provider(session: Session, provider_id: int) -> ProviderHoldings:
    """Return what is held from a provider."""
    rows = session.execute(
        select(Consumer.uuid, Consumer.generation, ResourceClass.name, Allocation.used, Allocation.updated_at)
        .join(Consumer, Consumer.id == Allocation.consumer_id)
        .join(ResourceClass, ResourceClass.id == Allocation.class_id)
        .where(Allocation.provider_id == provider_id)
        .order_by(Allocation.consumer_id, Allocation.class_id)
    )
    shares: dict[str, ConsumerShare] = {}
    newest: datetime.datetime | None = None
    for uuid, generation, name, used, updated_at in rows:
        shares.setdefault(uuid, ConsumerShare(generation)).resources[name] = used
        newest = updated_at if newest is None else max(newest, updated_at)
    return ProviderHoldings(shares, newest)


def remove(session: Session, consumer_uuid: str) -> None:
    """Take everything from a consumer, whatever its generation.

    :raises accelsched.errors.NotFoundError: it holds nothing
    """
    held = of_consumer(session, consumer_uuid)
    if held.consumer is None or not held.shares:
        raise errors.NotFoundError(f"No allocations for consumer '{consumer_uuid}'")
    claims.replace(
        session,
        [claims.ConsumerAllocation(consumer_uuid, held.consumer.project_id, held.consumer.user_id, allocations={})],
        advance=False,
    )
