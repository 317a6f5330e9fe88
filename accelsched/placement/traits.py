# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Traits: the standard ones, CUSTOM_ ones that come and go, and which provider has which."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable
from typing import Any, cast

import os_traits
from oslo_db import exception as db_exception
from sqlalchemy import CursorResult, bindparam, delete, exists, insert, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.base import table_of, utcnow
from accelsched.db.placement import ProviderTrait, Trait
from accelsched.placement import providers
from accelsched.placement.providers import LockedProvider


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
_traits = table_of(Trait)
_provider_traits = table_of(ProviderTrait)
_NAMED = (
    select(_traits.c.id, _traits.c.name, _traits.c.updated_at)
    .where(_traits.c.name.in_(bindparam("names", expanding=True)))
    .order_by(_traits.c.name)
)
_HAD = select(_provider_traits.c.trait_id).where(_provider_traits.c.provider_id == bindparam("of_id"))


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


def named(session: Session, names: Iterable[str]) -> list[NamedTrait]:
    """Return the traits of these names, by name.

    :raises accelsched.errors.InvalidError: when one does not exist
    """
    wanted = set(names)
    if not wanted:
        return []
    found = [NamedTrait(*row) for row in session.connection().execute(_NAMED, {"names": list(wanted)})]
    if missing := wanted - {trait.name for trait in found}:
        raise errors.InvalidError(f"No such trait(s): {', '.join(sorted(missing))}.")
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


def replace(
    session: Session, provider_uuid: str, names: Collection[str], *, expected: int | None = None
) -> tuple[LockedProvider, list[NamedTrait]]:
    """Give a provider just these traits. Its generation grows when that changes anything.

    :param expected: the generation that the caller saw; None when it does not matter
    :returns: the provider as it is now, and its traits
    :raises accelsched.errors.NotFoundError: the provider does not exist
    :raises accelsched.errors.ConcurrentUpdateError: its generation is another
    :raises accelsched.errors.InvalidError: a trait does not exist
    """
    provider = providers.lock(session, provider_uuid)
    if expected is not None:
        providers.check_generation(provider, expected)
    found = named(session, names)
    wanted = {trait.id for trait in found}
    connection = session.connection()
    had = set(connection.execute(_HAD, {"of_id": provider.id}).scalars())
    if wanted == had:
        return provider, found
    provider = providers.advance(session, provider)
    if gone := had - wanted:
        connection.execute(
            delete(_provider_traits).where(
                _provider_traits.c.provider_id == provider.id, _provider_traits.c.trait_id.in_(gone)
            )
        )
    if new := wanted - had:
        connection.execute(
            insert(_provider_traits), [{"provider_id": provider.id, "trait_id": trait_id} for trait_id in sorted(new)]
        )
    return provider, found
