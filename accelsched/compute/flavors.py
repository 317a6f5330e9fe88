# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Flavors: sizes that servers come in, with extra specs that ask for devices."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from oslo_db import exception as db_exception
from sqlalchemy import Select, delete, exists, insert, or_, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import paging
from accelsched.db.compute import Flavor, FlavorProject

SORT_COLUMNS = {
    "created_at": Flavor.created_at,
    "disabled": Flavor.disabled,
    "ephemeral_gb": Flavor.ephemeral_gb,
    "flavorid": Flavor.flavorid,
    "id": Flavor.id,
    "is_public": Flavor.is_public,
    "memory_mb": Flavor.ram_mb,
    "name": Flavor.name,
    "root_gb": Flavor.disk_gb,
    "rxtx_factor": Flavor.rxtx_factor,
    "swap": Flavor.swap_mb,
    "vcpus": Flavor.vcpus,
}


@dataclasses.dataclass(frozen=True)
class NewFlavor:
    """What a flavor is made of; ``flavorid`` None has one made up."""

    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    flavorid: str | None = None
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which flavors a list shows."""

    is_public: bool | None = None  # None: both
    visible_to: str | None = None  # project; None: to everybody
    min_ram_mb: int = 0
    min_disk_gb: int = 0


def create(session: Session, new: NewFlavor) -> Flavor:
    """Make a flavor.

    :raises accelsched.errors.DuplicateNameError: when its name or id is taken
    """
    values = dataclasses.asdict(new) | {"flavorid": new.flavorid or str(uuid.uuid4())}
    for column, value in ((Flavor.flavorid, values["flavorid"]), (Flavor.name, new.name)):
        if session.scalar(select(exists().where(column == value))):
            what = "ID" if column is Flavor.flavorid else "name"
            raise errors.DuplicateNameError(f"Flavor with {what} {value} already exists.")
    flavor = Flavor(**values, extra_specs={})
    session.add(flavor)
    try:
        session.flush()
    except db_exception.DBDuplicateEntry as exc:  # somebody else took it between the look and the write
        raise errors.DuplicateNameError(f"Flavor with name {new.name} or ID {values['flavorid']} exists.") from exc
    return flavor


def _visible(query: Select[Any], project_id: str | None) -> Select[Any]:
    if project_id is None:
        return query
    shared = exists().where(FlavorProject.flavor_id == Flavor.id, FlavorProject.project_id == project_id)
    return query.where(or_(Flavor.is_public, shared))


def get(session: Session, flavorid: str, *, visible_to: str | None = None, lock: bool = False) -> Flavor:
    """Return a flavor by its id.

    :param visible_to: a project; a private flavor that it may not use does not exist for it. None sees all
    :param lock: keep others from changing it until the transaction ends
    :raises accelsched.errors.NotFoundError: when there is none
    """
    query = _visible(select(Flavor).where(Flavor.flavorid == flavorid), visible_to)
    flavor: Flavor | None = session.scalar(query.with_for_update() if lock else query)
    if flavor is None:
        raise errors.NotFoundError(f"Flavor {flavorid} could not be found.")
    return flavor


def list_page(session: Session, wanted: Filter, sort: paging.Sort, marker: str | None, limit: int) -> Sequence[Flavor]:
    """Return one page of flavors.

    :param marker: id of the last flavor of the page before
    :raises accelsched.errors.InvalidError: when there is no such marker
    """
    query = _visible(select(Flavor), wanted.visible_to)
    if wanted.is_public is not None:
        query = query.where(Flavor.is_public == wanted.is_public)
    query = query.where(Flavor.ram_mb >= wanted.min_ram_mb, Flavor.disk_gb >= wanted.min_disk_gb)
    last = None
    if marker is not None:
        last = session.scalar(select(Flavor).where(Flavor.flavorid == marker))
        if last is None:
            raise errors.InvalidError(f"marker [{marker}] not found")
    return session.scalars(paging.page(query, SORT_COLUMNS, [*sort, ("id", "asc")], last, limit)).all()


def describe(session: Session, flavorid: str, description: str | None) -> Flavor:
    """Change a flavor's description.

    :raises accelsched.errors.NotFoundError: when there is no such flavor
    """
    flavor = get(session, flavorid, lock=True)
    flavor.description = description
    return flavor


def remove(session: Session, flavorid: str) -> None:
    """Delete a flavor. Servers keep the copy they were made with.

    :raises accelsched.errors.NotFoundError: when there is no such flavor
    """
    flavor = get(session, flavorid, lock=True)
    session.execute(delete(FlavorProject).where(FlavorProject.flavor_id == flavor.id))
    session.execute(delete(Flavor).where(Flavor.id == flavor.id))


def update_extra_specs(session: Session, flavorid: str, specs: Mapping[str, str]) -> dict[str, str]:
    """Add extra specs or change them and return all of them.

    :raises accelsched.errors.NotFoundError: when there is no such flavor
    """
    flavor = get(session, flavorid, lock=True)
    flavor.extra_specs = {**flavor.extra_specs, **specs}
    return flavor.extra_specs


def remove_extra_spec(session: Session, flavorid: str, key: str) -> None:
    """Remove one extra spec.

    :raises accelsched.errors.NotFoundError: when there is no such flavor or the flavor has no such spec
    """
    flavor = get(session, flavorid, lock=True)
    if key not in flavor.extra_specs:
        raise errors.NotFoundError(f"Flavor {flavorid} has no extra specs with key {key}.")
    flavor.extra_specs = {name: value for name, value in flavor.extra_specs.items() if name != key}


def projects(session: Session, flavorid: str) -> list[str]:
    """Return the projects that may use a private flavor.

    :raises accelsched.errors.NotFoundError: when there is no such flavor
    """
    flavor = get(session, flavorid)
    return list(session.scalars(select(FlavorProject.project_id).where(FlavorProject.flavor_id == flavor.id)))


def add_project(session: Session, flavorid: str, project_id: str) -> None:
    """Let a project use a private flavor.

    :raises accelsched.errors.NotFoundError: when there is no such flavor
    :raises accelsched.errors.ConflictError: when the flavor is public or the project has access already
    """
    flavor = get(session, flavorid, lock=True)
    if flavor.is_public:
        raise errors.ConflictError("Can not add access to a public flavor.")
    row = {"flavor_id": flavor.id, "project_id": project_id}
    if session.get(FlavorProject, row) is not None:
        raise errors.ConflictError(f"Flavor access already exists for flavor {flavorid} and project {project_id}.")
    session.execute(insert(FlavorProject), [row])


def remove_project(session: Session, flavorid: str, project_id: str) -> None:
    """Stop a project from using a private flavor.

    :raises accelsched.errors.NotFoundError: when there is no such flavor or no such access
    :raises accelsched.errors.ConflictError: when the flavor is public
    """
    flavor = get(session, flavorid, lock=True)
    if flavor.is_public:
        raise errors.ConflictError("Can not remove access from a public flavor.")
    access = session.get(FlavorProject, {"flavor_id": flavor.id, "project_id": project_id})
    if access is None:
        raise errors.NotFoundError(f"Flavor access not found for {flavorid} / {project_id} combination.")
    session.delete(access)
