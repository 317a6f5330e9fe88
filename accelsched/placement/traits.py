# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Traits: the standard ones, CUSTOM_ ones that come and go, and which provider has which."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection
from typing import Any, cast

import os_traits
from oslo_db import exception as db_exception
from sqlalchemy import CursorResult, delete, exists, insert, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.base import utcnow
from accelsched.db.placement import ProviderTrait, Trait
from accelsched.placement import providers
from accelsched.placement.provider_changes import Change, Finish
from accelsched.placement.provider_rows import Draft, LockedProvider, Needs, State


class TraitNotFoundError(errors.NotFoundError):
    """There is no trait of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No such trait(s): {name}.")


@dataclasses.dataclass(frozen=True)
class NamedTrait:
    """A trait."""

    id: int
    name: str
    updated_at: datetime.datetime


_COLUMNS = (Trait.id, Trait.name, Trait.updated_at)


def find(
    session: Session,
    *,
    names: Collection[str] | None = None,
    prefix: str = "",
    associated: bool | None = None,
) -> list[NamedTrait]:
    """Return traits by name.

    :param names: only these; None for all
    :param prefix: only names that start with it
    :param associated: only those that some provider has, or that none has
    """
    query = select(*_COLUMNS).order_by(Trait.name)
    if names is not None:
        query = query.where(Trait.name.in_(names))
    if associated is not None:
        used = exists().where(ProviderTrait.trait_id == Trait.id)
        query = query.where(used if associated else ~used)
    # SQL's LIKE disagrees between databases about case and wildcards; there are few enough traits to look at.
    return [NamedTrait(*row) for row in session.execute(query) if row.name.startswith(prefix)]


def get(session: Session, name: str) -> NamedTrait:
    """Return one trait.

    :raises TraitNotFoundError: when there is none of this name
    """
    row = session.execute(select(*_COLUMNS).where(Trait.name == name)).one_or_none()
    if row is None:
        raise TraitNotFoundError(name)
    return NamedTrait(*row)


def named(session: Session, names: Collection[str]) -> list[NamedTrait]:
    """Return the traits of these names, by name.

    :raises accelsched.errors.InvalidError: when one does not exist
    """
    found = find(session, names=names)
    if missing := set(names) - {trait.name for trait in found}:
        raise _unknown(missing)
    return found


def ensure(session: Session, name: str) -> bool:
    """Make sure that a CUSTOM_ trait exists.

    :returns: whether it is new
    """
    if session.scalar(select(Trait.id).where(Trait.name == name)) is not None:
        return False
    try:
        with session.begin_nested():
            session.execute(insert(Trait).values(name=name, updated_at=utcnow()))
    except db_exception.DBDuplicateEntry:
        return False
    return True


def remove(session: Session, name: str) -> None:
    """Remove a CUSTOM_ trait.

    :raises TraitNotFoundError: when there is none of this name
    :raises accelsched.errors.InvalidError: a standard trait stays
    :raises accelsched.errors.InUseError: a provider has it
    """
    known = get(session, name)
    if not os_traits.is_custom(name):
        raise errors.InvalidError(f"Cannot delete standard trait {name}.")
    in_use = errors.InUseError(f"The trait {name} is in use by a resource provider.")
    if session.scalar(select(ProviderTrait.provider_id).where(ProviderTrait.trait_id == known.id).limit(1)) is not None:
        raise in_use
    try:
        result = session.execute(delete(Trait).where(Trait.id == known.id).execution_options(synchronize_session=False))
    except db_exception.DBReferenceError as exc:
        raise in_use from exc
    if cast("CursorResult[Any]", result).rowcount == 0:
        raise TraitNotFoundError(name)


def of_provider(session: Session, provider_id: int) -> list[NamedTrait]:
    """Return the traits that a provider has, by name."""
    rows = session.execute(
        select(*_COLUMNS)
        .join(ProviderTrait, ProviderTrait.trait_id == Trait.id)
        .where(ProviderTrait.provider_id == provider_id)
        .order_by(Trait.name)
    )
    return [NamedTrait(*row) for row in rows]


@dataclasses.dataclass(frozen=True)
class Replacement(Change[tuple[LockedProvider, list[NamedTrait]]]):
    """Just these traits for a provider. Its generation grows when that changes anything.

    Its result is the provider as it is then, and its traits by name.

    :ivar expected: the generation that the caller saw; None when it does not matter
    """

    provider_uuid: str
    names: Collection[str]
    expected: int | None = None

    @property
    def subjects(self) -> Collection[str]:
        """The provider."""
        return (self.provider_uuid,)

    def ask(self, needs: Needs) -> None:
        """Find out what it has, and which traits there are."""
        needs.providers.add(self.provider_uuid)
        needs.marked.add(self.provider_uuid)
        needs.traits.update(self.names)

    def decide(self, _session: Session, state: State, draft: Draft) -> Finish[tuple[LockedProvider, list[NamedTrait]]]:
        """Replace them.

        :raises accelsched.errors.NotFoundError: the provider does not exist
        :raises accelsched.errors.ConcurrentUpdateError: its generation is another
        :raises accelsched.errors.InvalidError: a trait does not exist
        """
        provider = providers.locked(state, self.provider_uuid, self.expected)
        names = set(self.names)
        if missing := names - state.traits.keys():
            raise _unknown(missing)
        found = [
            NamedTrait(id_, name, updated_at) for name in sorted(names) for id_, updated_at in (state.traits[name],)
        ]
        wanted = {trait.id for trait in found}
        had = state.had.get(provider.id, set())
        if wanted == had:
            return lambda _ids: (provider, found)
        draft.advanced.append(provider.id)
        draft.marked += [(provider.id, trait_id) for trait_id in sorted(wanted - had)]
        draft.unmarked += [(provider.id, trait_id) for trait_id in had - wanted]
        now = dataclasses.replace(provider, generation=provider.generation + 1, updated_at=draft.now)
        return lambda _ids: (now, found)


def _unknown(names: Collection[str]) -> errors.InvalidError:
    return errors.InvalidError(f"No such trait(s): {', '.join(sorted(names))}.")
