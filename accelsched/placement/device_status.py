# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices that take nothing new: *closed*.

They are disabled by an operator; unhealthy, as their agent says; or lost: allocated, and not seen by their agent any
more. Each is a trait of the device's provider, so that any client of Placement sees why all of it is reserved.
What an operator had reserved before is kept (``Inventory.operator_reserved``), for the day that it is opened again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.orm import Session, aliased

from accelsched import errors, names, wire
from accelsched.db import feed
from accelsched.db.base import utcnow
from accelsched.db.placement import (
    Allocation,
    Consumer,
    Inventory,
    ProviderTrait,
    ResourceClass,
    ResourceProvider,
    Trait,
)

Status = Literal["enabled", "disabled", "unhealthy", "lost"]

# What is to be said first comes first.
_TRAITS: Mapping[str, Status] = {
    names.DEVICE_LOST: "lost",
    names.DEVICE_UNHEALTHY: "unhealthy",
    names.DEVICE_DISABLED: "disabled",
}


@dataclasses.dataclass(frozen=True)
class Stock:
    """How much a device has of one class."""

    total: int
    reserved: int
    used: int


@dataclasses.dataclass(frozen=True)
class Device:
    """A device of a host."""

    id: int
    uuid: str
    name: str
    root_uuid: str  # of its host's provider
    marks: frozenset[Status]
    inventories: Mapping[str, Stock]  # by class
    consumers: tuple[str, ...]  # uuids, sorted

    @property
    def status(self) -> Status:
        """What is to be said of it first."""
        return _first(self.marks)


def page(
    session: Session,
    *,
    root_uuid: str | None = None,
    status: Status | None = None,
    uuid: str | None = None,
    after: int = 0,
    limit: int,
) -> list[Device]:
    """Return devices by id: providers that are the children of roots.

    :param session: a snapshot, or the parts may not fit together
    :param root_uuid: only those of one host
    :param status: only those of which this is to be said first
    :param uuid: only this one
    :param after: only those with a greater id
    """
    root = aliased(ResourceProvider)
    query = (
        select(ResourceProvider.id, ResourceProvider.uuid, ResourceProvider.name, root.uuid)
        .join(root, root.id == ResourceProvider.root_id)
        .where(ResourceProvider.parent_id.is_not(None), ResourceProvider.id > after)
        .order_by(ResourceProvider.id)
        .limit(limit)
    )
    if root_uuid is not None:
        query = query.where(root.uuid == root_uuid)
    if uuid is not None:
        query = query.where(ResourceProvider.uuid == uuid)
    marked = select(ProviderTrait.provider_id).join(Trait, Trait.id == ProviderTrait.trait_id)
    for name, meaning in _TRAITS.items() if status is not None else ():
        having = marked.where(Trait.name == name)
        if meaning == status:
            query = query.where(ResourceProvider.id.in_(having))
            break
        query = query.where(ResourceProvider.id.not_in(having))
    rows = session.execute(query).all()
    ids = [row[0] for row in rows]
    marks = marks_of(session, ids)
    stocks: dict[int, dict[str, Stock]] = defaultdict(dict)
    for id_, name, total, reserved, used in session.execute(
        select(Inventory.provider_id, ResourceClass.name, Inventory.total, Inventory.reserved, Inventory.used)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id.in_(ids))
        .order_by(ResourceClass.name)
    ):
        stocks[id_][name] = Stock(total, reserved, used)
    consumers: dict[int, set[str]] = defaultdict(set)
    for id_, consumer in session.execute(
        select(Allocation.provider_id, Consumer.uuid)
        .join(Consumer, Consumer.id == Allocation.consumer_id)
        .where(Allocation.provider_id.in_(ids))
    ):
        consumers[id_].add(consumer)
    return [
        Device(
            id_,
            uuid_,
            name,
            root_,
            frozenset(marks[id_]),
            stocks[id_],
            tuple(sorted(consumers[id_])),
        )
        for id_, uuid_, name, root_ in rows
    ]


def get(session: Session, uuid: str) -> Device:
    """Return one device.

    :raises accelsched.errors.NotFoundError: there is none
    """
    found = page(session, uuid=uuid, limit=1)
    if not found:
        raise errors.NotFoundError(f"there is no device {uuid}")
    return found[0]


def counts(session: Session) -> Mapping[str, int]:
    """Return how many devices there are of each status."""
    every = session.scalar(
        select(func.count()).select_from(ResourceProvider).where(ResourceProvider.parent_id.is_not(None))
    )
    marks: dict[int, set[Status]] = defaultdict(set)
    for id_, name in session.execute(
        select(ProviderTrait.provider_id, Trait.name)
        .join(Trait, Trait.id == ProviderTrait.trait_id)
        .where(Trait.name.in_(_TRAITS))
    ):
        marks[id_].add(_TRAITS[name])
    found = Counter(map(_first, marks.values()))
    return {"enabled": (every or 0) - len(marks), **{status: found[status] for status in _TRAITS.values()}}


def _first(marks: Collection[Status]) -> Status:
    return next((status for status in _TRAITS.values() if status in marks), "enabled")


def disable(session: Session, uuid: str, told: wire.ProviderReport | None) -> None:
    """Let nothing new onto a device; what is there stays.

    :param told: what its agent reported last of it; None when it does not see it
    :raises accelsched.errors.NotFoundError: there is none
    """
    provider = _lock(session, uuid)
    is_closed = bool(marks_of(session, [provider.id])[provider.id])
    if mark(session, provider, names.DEVICE_DISABLED, present=True):
        if not is_closed:
            close(session, provider, told)
        _changed(session, provider)


def enable(session: Session, uuid: str, told: wire.ProviderReport | None) -> None:
    """Let a device take again what its agent says that it has. One that has a fault stays closed as long as that.

    :param told: what its agent reported last of it; None when it does not see it
    :raises accelsched.errors.NotFoundError: there is none
    """
    provider = _lock(session, uuid)
    if not mark(session, provider, names.DEVICE_DISABLED, present=False):
        return
    if told is not None and not marks_of(session, [provider.id])[provider.id]:
        reopen(session, provider, told)
    _changed(session, provider)


def lost(session: Session, root_uuid: str) -> set[str]:
    """Return the uuids of a host's devices that are marked as lost."""
    root = aliased(ResourceProvider)
    return set(
        session.scalars(
            select(ResourceProvider.uuid)
            .join(root, root.id == ResourceProvider.root_id)
            .join(ProviderTrait, ProviderTrait.provider_id == ResourceProvider.id)
            .join(Trait, Trait.id == ProviderTrait.trait_id)
            .where(root.uuid == root_uuid, Trait.name == names.DEVICE_LOST)
        )
    )


def marks_of(session: Session, provider_ids: Iterable[int]) -> dict[int, set[Status]]:
    """Return what providers are marked as."""
    marks: dict[int, set[Status]] = defaultdict(set)
    for id_, name in session.execute(
        select(ProviderTrait.provider_id, Trait.name)
        .join(Trait, Trait.id == ProviderTrait.trait_id)
        .where(ProviderTrait.provider_id.in_(list(provider_ids)), Trait.name.in_(_TRAITS))
    ):
        marks[id_].add(_TRAITS[name])
    return marks


def mark(session: Session, provider: ResourceProvider, name: str, *, present: bool) -> bool:
    """Give a locked provider one of the traits, or take it.

    :returns: whether that changed anything
    """
    trait_id = session.scalar(select(Trait.id).where(Trait.name == name))
    if trait_id is None:
        if not present:
            return False
        trait = Trait(name=name)
        session.add(trait)
        session.flush()
        trait_id = trait.id
    has = session.get(ProviderTrait, (provider.id, trait_id)) is not None
    if has == present:
        return False
    if present:
        session.execute(insert(ProviderTrait).values(provider_id=provider.id, trait_id=trait_id))
    else:
        session.execute(
            delete(ProviderTrait)
            .where(ProviderTrait.provider_id == provider.id, ProviderTrait.trait_id == trait_id)
            .execution_options(synchronize_session="fetch")
        )
    return True


def close(session: Session, provider: ResourceProvider, told: wire.ProviderReport | None) -> None:
    """Reserve all that a locked provider has, and keep in mind what of it an operator had reserved.

    :param told: what its agent reported last of it; what else is reserved is an operator's doing
    """
    offered = {} if told is None else told["inventories"]
    for row, name in _stock(session, provider):
        is_agents = name in offered and offered[name]["reserved"] == row.reserved
        row.operator_reserved = None if is_agents else row.reserved
        row.reserved = row.total
        row.updated_at = utcnow()
    session.flush()


def reserve(session: Session, provider: ResourceProvider) -> bool:
    """Reserve all that a locked provider has, which is closed already.

    :returns: whether that changed anything
    """
    changed = False
    for row, _ in _stock(session, provider):
        if row.reserved != row.total:
            row.operator_reserved = row.reserved
            row.reserved = row.total
            row.updated_at = utcnow()
            changed = True
    session.flush()
    return changed


def reopen(session: Session, provider: ResourceProvider, told: wire.ProviderReport) -> None:
    """Have a locked provider reserve what its agent says, or what an operator said instead before it was closed."""
    for row, name in _stock(session, provider):
        if name not in told["inventories"]:
            continue  # what its agent does not offer any more stays reserved
        if row.reserved == row.total:  # else an operator has said otherwise meanwhile
            mine = row.operator_reserved
            row.reserved = min(told["inventories"][name]["reserved"] if mine is None else mine, row.total)
        row.operator_reserved = None
        row.updated_at = utcnow()
    session.flush()


def _stock(session: Session, provider: ResourceProvider) -> Sequence[Row[Inventory, str]]:
    return session.execute(
        select(Inventory, ResourceClass.name)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id == provider.id)
    ).all()


def _lock(session: Session, uuid: str) -> ResourceProvider:
    provider = session.scalars(
        select(ResourceProvider)
        .where(ResourceProvider.uuid == uuid, ResourceProvider.parent_id.is_not(None))
        .with_for_update()
    ).one_or_none()
    if provider is None:
        raise errors.NotFoundError(f"there is no device {uuid}")
    return provider


def _changed(session: Session, provider: ResourceProvider) -> None:
    provider.generation += 1
    provider.updated_at = utcnow()
    session.flush()
    feed.touch(session, [provider.id])
