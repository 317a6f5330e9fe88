# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Aggregates: sets of providers that are known by their uuid only."""

from __future__ import annotations

from collections.abc import Callable, Collection

from oslo_db import exception as db_exception
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.placement import Aggregate, ProviderAggregate
from accelsched.placement import providers
from accelsched.placement.providers import LockedProvider


def of_provider(session: Session, provider_id: int) -> list[str]:
    """Return the uuids of the aggregates that a provider is in."""
    return list(
        session.scalars(
            select(Aggregate.uuid)
            .join(ProviderAggregate, ProviderAggregate.aggregate_id == Aggregate.id)
            .where(ProviderAggregate.provider_id == provider_id)
            .order_by(Aggregate.uuid)
        )
    )


def replace(
    session: Session, provider_uuid: str, aggregates: Collection[str], *, expected: int | None = None
) -> tuple[LockedProvider, list[str]]:
    """Put a provider into just these aggregates; one never heard of comes into being.

    :param expected: the generation that the caller saw, which then grows by one. None, as before Placement 1.19:
        the generation is neither checked nor raised
    :returns: the provider as it is now, and its aggregates
    :raises accelsched.errors.NotFoundError: the provider does not exist
    :raises accelsched.errors.ConcurrentUpdateError: its generation is another
    """
    provider = providers.lock(session, provider_uuid)
    if expected is not None:
        providers.check_generation(provider, expected)
        provider = providers.advance(session, provider)
    wanted = set(_ensure(session, aggregates))
    had = set(
        session.scalars(select(ProviderAggregate.aggregate_id).where(ProviderAggregate.provider_id == provider.id))
    )
    if gone := had - wanted:
        session.execute(
            delete(ProviderAggregate).where(
                ProviderAggregate.provider_id == provider.id, ProviderAggregate.aggregate_id.in_(gone)
            )
        )
    if new := wanted - had:
        session.execute(
            insert(ProviderAggregate),
            [{"provider_id": provider.id, "aggregate_id": aggregate_id} for aggregate_id in sorted(new)],
        )
    feed.touch(session, [provider.id])
    return provider, of_provider(session, provider.id)


def join(session: Session, provider_uuid: str, aggregate_uuid: str) -> None:
    """Put a provider into one more aggregate. A provider that is gone is left alone."""
    _change(session, provider_uuid, lambda had: had | {aggregate_uuid})


def leave(session: Session, provider_uuid: str, aggregate_uuid: str) -> None:
    """Take a provider out of one aggregate. A provider that is gone is left alone."""
    _change(session, provider_uuid, lambda had: had - {aggregate_uuid})


def _change(session: Session, provider_uuid: str, change: Callable[[set[str]], set[str]]) -> None:
    try:
        provider = providers.lock(session, provider_uuid)
    except errors.NotFoundError:
        return
    had = set(of_provider(session, provider.id))
    wanted = change(had)
    if wanted != had:
        replace(session, provider_uuid, wanted, expected=provider.generation)


def _ensure(session: Session, uuids: Collection[str]) -> list[int]:
    if not uuids:
        return []
    known = set(session.scalars(select(Aggregate.uuid).where(Aggregate.uuid.in_(uuids))))
    # In one order everywhere, so that two writers never wait for each other in a circle.
    for uuid in sorted(set(uuids) - known):
        try:
            with session.begin_nested():
                session.execute(insert(Aggregate).values(uuid=uuid))
        except db_exception.DBDuplicateEntry:
            continue  # Somebody else was quicker, which is just as well.
    return list(session.scalars(select(Aggregate.id).where(Aggregate.uuid.in_(uuids))))
