# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Resource classes: the standard ones, and CUSTOM_ ones that come and go."""

from __future__ import annotations

import dataclasses
import datetime
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import os_resource_classes
from oslo_db import exception as db_exception
from sqlalchemy import CursorResult, delete, insert, select, update
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.base import table_of, utcnow
from accelsched.db.placement import Inventory, ResourceClass

_classes = table_of(ResourceClass)


class ClassNotFoundError(errors.NotFoundError):
    """There is no resource class of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No such resource class {name}.")


@dataclasses.dataclass(frozen=True)
class NamedClass:
    """A resource class."""

    id: int
    name: str
    updated_at: datetime.datetime


def find_all(session: Session) -> list[NamedClass]:
    """Return every resource class, standard ones first."""
    rows = session.execute(
        select(ResourceClass.id, ResourceClass.name, ResourceClass.updated_at).order_by(ResourceClass.id)
    )
    return [NamedClass(*row) for row in rows]


def get(session: Session, name: str) -> NamedClass:
    """Return one resource class.

    :raises ClassNotFoundError: when there is none of this name
    """
    row = session.execute(
        select(ResourceClass.id, ResourceClass.name, ResourceClass.updated_at).where(ResourceClass.name == name)
    ).one_or_none()
    if row is None:
        raise ClassNotFoundError(name)
    return NamedClass(*row)


def ids(session: Session, names: Iterable[str]) -> dict[str, int]:
    """Return the ids of classes by name.

    :raises accelsched.errors.InvalidError: when one does not exist
    """
    wanted = set(names)
    found = known_ids(session, wanted)
    require(found, wanted)
    return found


def require(known: Mapping[str, int], names: Collection[str]) -> None:
    """Refuse names of classes that do not exist.

    :raises accelsched.errors.InvalidError: naming one
    """
    if missing := [name for name in names if name not in known]:
        raise errors.InvalidError(f"No such resource class {min(missing)}.")


# By engine. A standard class keeps its name and its id for good; custom ones come and go.
_standard_ids: weakref.WeakKeyDictionary[object, dict[str, int]] = weakref.WeakKeyDictionary()


def known_ids(session: Session, names: Collection[str]) -> dict[str, int]:
    """Return the ids of those classes that exist, by name."""
    standard = _standard_ids.setdefault(session.get_bind(), {})
    found = {name: standard[name] for name in names if name in standard}
    if len(found) < len(names):
        unknown = [name for name in names if name not in found]
        query = select(_classes.c.name, _classes.c.id).where(_classes.c.name.in_(unknown))
        asked = dict(session.connection().execute(query).all())
        standard.update({name: id_ for name, id_ in asked.items() if not os_resource_classes.is_custom(name)})
        found |= asked
    return found


def names(session: Session, class_ids: Collection[int]) -> dict[int, str]:
    """Return the names of classes by id."""
    if not class_ids:
        return {}
    return dict(
        session.execute(select(ResourceClass.id, ResourceClass.name).where(ResourceClass.id.in_(class_ids))).all()
    )


def create(session: Session, name: str) -> None:
    """Add a CUSTOM_ class.

    :raises accelsched.errors.DuplicateNameError: when it is there already
    """
    conflict = errors.DuplicateNameError(f"Conflicting resource class already exists: {name}")
    if session.scalar(select(ResourceClass.id).where(ResourceClass.name == name)) is not None:
        raise conflict
    try:
        session.execute(insert(ResourceClass).values(name=name, updated_at=utcnow()))
    except db_exception.DBDuplicateEntry as exc:
        raise conflict from exc


def rename(session: Session, name: str, new_name: str) -> None:
    """Give a CUSTOM_ class another name.

    :raises ClassNotFoundError: when there is none of this name
    :raises accelsched.errors.InvalidError: a standard class keeps its name
    :raises accelsched.errors.DuplicateNameError: the new name is taken
    """
    known = get(session, name)
    if not os_resource_classes.is_custom(name):
        raise errors.InvalidError(f"Cannot update standard resource class {name}")
    conflict = errors.DuplicateNameError(f"Resource class already exists: {new_name}")
    if session.scalar(select(ResourceClass.id).where(ResourceClass.name == new_name)) not in (None, known.id):
        raise conflict
    try:
        session.execute(
            update(ResourceClass)
            .where(ResourceClass.id == known.id)
            .values(name=new_name, updated_at=utcnow())
            .execution_options(synchronize_session=False)
        )
    except db_exception.DBDuplicateEntry as exc:
        raise conflict from exc
    # Fleet pictures know classes by name. Whoever adds an inventory of this class meanwhile waits for the row above.
    feed.touch(session, session.scalars(select(Inventory.provider_id).where(Inventory.class_id == known.id)))


def remove(session: Session, name: str) -> None:
    """Remove a CUSTOM_ class.

    :raises ClassNotFoundError: when there is none of this name
    :raises accelsched.errors.InvalidError: a standard class stays
    :raises accelsched.errors.InUseError: a provider has an inventory of it
    """
    known = get(session, name)
    if not os_resource_classes.is_custom(name):
        raise errors.InvalidError(f"Cannot delete standard resource class {name}.")
    in_use = errors.InUseError(f"Cannot delete resource class {name}. Class is in use in inventory.")
    if session.scalar(select(Inventory.provider_id).where(Inventory.class_id == known.id).limit(1)) is not None:
        raise in_use
    try:
        result = session.execute(
            delete(ResourceClass).where(ResourceClass.id == known.id).execution_options(synchronize_session=False)
        )
    except db_exception.DBReferenceError as exc:
        raise in_use from exc
    if cast("CursorResult[Any]", result).rowcount == 0:
        raise ClassNotFoundError(name)
