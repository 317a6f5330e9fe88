# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Resource providers: their names, their trees, their generations."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from oslo_db import exception as db_exception
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.base import table_of, utcnow
from accelsched.db.placement import (
    Allocation,
    CapacityRule,
    Inventory,
    NumaTopology,
    ProviderAggregate,
    ProviderTrait,
    ResourceProvider,
)
from accelsched.placement.provider_changes import Change, Finish
from accelsched.placement.provider_rows import Draft, LockedProvider, Needs, NewProvider, Provider, State

__all__ = [
    "NAME_MAX",
    "Creation",
    "DuplicateProviderError",
    "HasChildrenError",
    "LockedProvider",
    "Provider",
    "ProviderInUseError",
    "ProviderNotFoundError",
    "advance",
    "check_generation",
    "get",
    "lock",
    "lock_tree",
    "locked",
    "remove",
    "rename",
    "set_parent",
]

NAME_MAX = 200


class ProviderNotFoundError(errors.NotFoundError):
    """There is no resource provider of this uuid."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"No resource provider with uuid {uuid} found")


class HasChildrenError(errors.InUseError):
    """A provider with children is not removed."""


class ProviderInUseError(errors.InUseError):
    """A provider that something is allocated from is not removed."""


class DuplicateProviderError(errors.DuplicateNameError):
    """There is a provider of this name or uuid."""


P = TypeVar("P", bound=LockedProvider)

# Statements of every write, on plain tables and built once: a fleet is loaded provider by provider.
_providers = table_of(ResourceProvider)
_root = _providers.alias("root")
_parent = _providers.alias("parent")
_STATE = (_providers.c.id, _providers.c.uuid, _providers.c.generation, _providers.c.updated_at)
_GET = (
    select(*_STATE, _providers.c.name, _root.c.id, _root.c.uuid, _parent.c.uuid)
    .select_from(_providers)
    .join(_root, _providers.c.root_id == _root.c.id)
    .outerjoin(_parent, _providers.c.parent_id == _parent.c.id)
    .where(_providers.c.uuid == bindparam("of_uuid"))
)
_LOCK = select(*_STATE).where(_providers.c.uuid == bindparam("of_uuid")).with_for_update()
_LOCK_ROOT = (
    select(_root.c.id)
    .where(
        _root.c.id == select(_providers.c.root_id).where(_providers.c.uuid == bindparam("of_uuid")).scalar_subquery()
    )
    .with_for_update()
)
_ADVANCE = (
    update(_providers)
    .where(_providers.c.id == bindparam("of_id"), _providers.c.generation == bindparam("seen"))
    .values(generation=_providers.c.generation + 1, updated_at=bindparam("now"))
)
_NO_PARENT = "parent provider UUID does not exist."


def get(session: Session, uuid: str) -> Provider:
    """Return one provider.

    :raises ProviderNotFoundError: when there is none of this uuid
    """
    row = session.connection().execute(_GET, {"of_uuid": uuid}).one_or_none()
    if row is None:
        raise ProviderNotFoundError(uuid)
    return Provider(*row)


def lock(session: Session, uuid: str) -> LockedProvider:
    """Return one provider and keep every other writer of it waiting until this transaction ends.

    :raises ProviderNotFoundError: when there is none of this uuid
    """
    row = session.connection().execute(_LOCK, {"of_uuid": uuid}).one_or_none()
    if row is None:
        raise ProviderNotFoundError(uuid)
    return LockedProvider(*row)


def lock_tree(session: Session, uuid: str) -> Provider:
    """Return one provider; the tree it is in keeps its shape until this transaction ends.

    :raises ProviderNotFoundError: when there is none of this uuid
    """
    while True:
        # Whoever changes the shape of a tree locks its root.
        locked = session.connection().execute(_LOCK_ROOT, {"of_uuid": uuid}).scalar_one_or_none()
        provider = get(session, uuid)
        if provider.root_id == locked:
            return provider


def locked(state: State, uuid: str, expected: int | None) -> LockedProvider:
    """Return a provider that a change is about.

    :param expected: the generation that the caller saw; None when it does not matter
    :raises ProviderNotFoundError: when there is none of this uuid
    :raises accelsched.errors.ConcurrentUpdateError: when its generation is another
    """
    provider = state.providers.get(uuid)
    if provider is None:
        raise ProviderNotFoundError(uuid)
    if expected is not None:
        check_generation(provider, expected)
    return provider


def check_generation(provider: LockedProvider, expected: int) -> None:
    """Refuse to write on top of a state that the caller has not seen.

    :raises accelsched.errors.ConcurrentUpdateError: when the provider's generation is another than ``expected``
    """
    if provider.generation != expected:
        raise errors.ConcurrentUpdateError(
            f"resource provider generation conflict for {provider.uuid}: actual: {provider.generation}, "
            f"given: {expected}"
        )


def advance(session: Session, provider: P) -> P:
    """Raise the provider's generation by one, if it is still what ``provider`` says, and return it as it is now.

    :raises accelsched.errors.ConcurrentUpdateError: when another writer was quicker
    """
    now = utcnow()
    given = {"of_id": provider.id, "seen": provider.generation, "now": now}
    if session.connection().execute(_ADVANCE, given).rowcount != 1:
        raise errors.ConcurrentUpdateError(
            f"another request changed resource provider {provider.uuid}; read it and try again"
        )
    feed.touch(session, [provider.id])
    return dataclasses.replace(provider, generation=provider.generation + 1, updated_at=now)


@dataclasses.dataclass(frozen=True)
class Creation(Change[Provider]):
    """A new provider: a root, or a child of ``parent_uuid``."""

    uuid: str
    name: str
    parent_uuid: str | None = None

    @property
    def subjects(self) -> Collection[str]:
        """Its uuid, its parent's, its name as any database compares it."""
        return {self.uuid, self.parent_uuid or self.uuid, f"name {self.name.rstrip(' ')}"}

    def ask(self, needs: Needs) -> None:
        """Find out what is there of this uuid or name, and where the parent stands."""
        needs.new[self.uuid] = self.name
        if self.parent_uuid is not None:
            needs.parents.add(self.parent_uuid)

    def decide(self, _session: Session, state: State, draft: Draft) -> Finish[Provider]:
        """Create it.

        :raises accelsched.errors.InvalidError: the name is empty, or the parent does not exist
        :raises DuplicateProviderError: the name or the uuid is taken
        """
        if not self.name:
            raise errors.InvalidError("a resource provider's name is required")
        if self.parent_uuid == self.uuid:
            raise errors.InvalidError("a resource provider cannot be its own parent")
        parent = None
        if self.parent_uuid is not None:
            parent = state.known.get(self.parent_uuid)
            if parent is None:
                raise errors.InvalidError(_NO_PARENT)
        if self.uuid in state.known or self.name in state.taken:
            what = f"uuid: {self.uuid}" if self.uuid in state.known else f"name: {self.name}"
            raise DuplicateProviderError(f"Conflicting resource provider {what} already exists.")
        place = (None, None) if parent is None else (parent.id, parent.root_id)
        draft.created.append(NewProvider(self.uuid, self.name, *place))

        def finish(ids: Mapping[str, int]) -> Provider:
            id_ = ids[self.uuid]
            root = (id_, self.uuid) if parent is None else (parent.root_id, parent.root_uuid)
            return Provider(id_, self.uuid, 0, draft.now, self.name, *root, self.parent_uuid)

        return finish


def rename(session: Session, uuid: str, name: str) -> Provider:
    """Give a provider another name, be it an empty one. Its generation stays. Both as in Placement.

    :raises ProviderNotFoundError: when there is none of this uuid
    :raises DuplicateProviderError: the name is taken
    """
    provider = lock(session, uuid)
    conflict = DuplicateProviderError(f"Conflicting resource provider {name} already exists.")
    other = session.scalar(select(ResourceProvider.id).where(ResourceProvider.name == name))
    if other not in (None, provider.id):
        raise conflict
    try:
        session.execute(
            update(ResourceProvider)
            .where(ResourceProvider.id == provider.id)
            .values(name=name, updated_at=utcnow())
            .execution_options(synchronize_session=False)
        )
    except db_exception.DBDuplicateEntry as exc:
        raise conflict from exc
    feed.touch(session, [provider.id])
    return get(session, uuid)


def set_parent(session: Session, uuid: str, parent_uuid: str | None, *, may_leave: bool) -> Provider:
    """Move a provider, and all below it, under another parent or to the top. Generations stay, as in Placement.

    :param may_leave: whether a provider that has a parent may get another one, or none
    :raises ProviderNotFoundError: when there is none of this uuid
    :raises accelsched.errors.InvalidError: unknown parent, a loop, or a move that ``may_leave`` rules out
    """
    provider = lock_tree(session, uuid)
    if provider.parent_uuid == parent_uuid:
        return provider
    parent = None if parent_uuid is None else _lock_parent(session, parent_uuid)
    if provider.parent_uuid is not None and not may_leave:
        raise errors.InvalidError(
            "un-parenting a provider is not currently allowed."
            if parent is None
            else "re-parenting a provider is not currently allowed."
        )
    below = _subtree(session, provider.id)
    if parent is not None and parent.id in below:
        raise errors.InvalidError("creating loop in the provider tree is not allowed.")
    root_id = provider.id if parent is None else parent.root_id
    moves: list[tuple[list[int], dict[str, Any]]] = [
        ([provider.id], {"parent_id": None if parent is None else parent.id, "updated_at": utcnow()}),
        (below, {"root_id": root_id}),
    ]
    for ids, values in moves:
        session.execute(
            update(ResourceProvider)
            .where(ResourceProvider.id.in_(ids))
            .values(values)
            .execution_options(synchronize_session=False)
        )
    feed.touch(session, below)
    return get(session, uuid)


def remove(session: Session, uuid: str) -> None:
    """Remove a provider with its inventories, capacity rule, traits and aggregate memberships.

    :raises ProviderNotFoundError: when there is none of this uuid
    :raises HasChildrenError: it has children
    :raises ProviderInUseError: something is allocated from it
    """
    provider = lock(session, uuid)
    has_children = HasChildrenError(
        f"Unable to delete parent resource provider {uuid}: It has child resource providers."
    )
    if session.scalar(select(ResourceProvider.id).where(ResourceProvider.parent_id == provider.id).limit(1)):
        raise has_children
    if session.scalar(select(Allocation.consumer_id).where(Allocation.provider_id == provider.id).limit(1)):
        raise ProviderInUseError(f"Unable to delete resource provider {uuid}: Resource provider has allocations.")
    for table in (Inventory, CapacityRule, NumaTopology, ProviderTrait, ProviderAggregate):
        session.execute(delete(table).where(table.provider_id == provider.id))
    # A root refers to itself, which not every database lets go of in one statement.
    session.execute(
        update(ResourceProvider)
        .where(ResourceProvider.id == provider.id)
        .values(root_id=None)
        .execution_options(synchronize_session=False)
    )
    try:
        session.execute(
            delete(ResourceProvider)
            .where(ResourceProvider.id == provider.id)
            .execution_options(synchronize_session=False)
        )
    except db_exception.DBReferenceError as exc:
        raise has_children from exc
    feed.touch(session, [provider.id])


def _lock_parent(session: Session, parent_uuid: str) -> Provider:
    try:
        return lock_tree(session, parent_uuid)
    except ProviderNotFoundError as exc:
        raise errors.InvalidError(_NO_PARENT) from exc


def _subtree(session: Session, provider_id: int) -> list[int]:
    found = [provider_id]
    level = found
    while level:
        level = list(session.scalars(select(ResourceProvider.id).where(ResourceProvider.parent_id.in_(level))))
        found = found + level
    return found
