# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Device profiles: what flavors ask for with ``accel:device_profile=NAME``, in place of spelling it out.

A group of a profile is a request group of the flavor's, so all that flavors can ask for a profile can. A server keeps
what its profile said when it was made.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from oslo_db import exception as db_exception
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.accelerator import DeviceProfile
from accelsched.scheduler import request as scheduler_request

EXTRA_SPEC = "accel:device_profile"
_SUFFIX = "_device_profile_"

Groups = Sequence[Mapping[str, str]]


def create(session: Session, *, name: str, description: str | None, groups: Groups) -> DeviceProfile:
    """Keep a profile.

    :param groups: ``resources:CLASS``, ``trait:NAME``, ``accel:bitstream_id`` and ``accel:function_id`` with values
    :raises accelsched.errors.InvalidError: naming what makes no sense
    :raises accelsched.errors.DuplicateNameError: there is one of this name
    """
    scheduler_request.check_extra_specs(_extra_specs(groups))
    profile = DeviceProfile(uuid=str(uuid.uuid4()), name=name, description=description, groups=[*map(dict, groups)])
    session.add(profile)
    try:
        session.flush()
    except db_exception.DBDuplicateEntry as exc:
        raise errors.DuplicateNameError(f"There is a device profile {name} already.") from exc
    return profile


def get(session: Session, name_or_uuid: str) -> DeviceProfile:
    """Return a profile.

    :raises accelsched.errors.NotFoundError: there is none
    """
    named = or_(DeviceProfile.uuid == name_or_uuid, DeviceProfile.name == name_or_uuid)
    profile = session.scalar(select(DeviceProfile).where(named).order_by(DeviceProfile.uuid != name_or_uuid).limit(1))
    if profile is None:
        raise errors.NotFoundError(f"There is no device profile {name_or_uuid[:255]}.")
    return profile


def list_(session: Session, names: Collection[str] | None = None) -> Sequence[DeviceProfile]:
    """Return profiles by name.

    :param names: of those that are wanted; None for all
    """
    query = select(DeviceProfile).order_by(DeviceProfile.name)
    return session.scalars(query if names is None else query.where(DeviceProfile.name.in_(names))).all()


def remove(session: Session, name_or_uuid: str) -> None:
    """Forget a profile; servers that were made with it keep what it said.

    :raises accelsched.errors.NotFoundError: there is none
    """
    session.execute(delete(DeviceProfile).where(DeviceProfile.id == get(session, name_or_uuid).id))


def expanded(session: Session, extra_specs: Mapping[str, str]) -> dict[str, str]:
    """Return a flavor's extra specs with those that its profile stands for.

    :raises accelsched.errors.InvalidError: there is no such profile
    """
    name = extra_specs.get(EXTRA_SPEC)
    if name is None:
        return dict(extra_specs)
    try:
        profile = get(session, name)
    except errors.NotFoundError as exc:
        raise errors.InvalidError(f"extra spec {EXTRA_SPEC}: there is no device profile {name[:255]}") from exc
    return {**extra_specs, **_extra_specs(profile.groups)}


def written(extra_specs: Mapping[str, str]) -> dict[str, str]:
    """Return those of extra specs that the flavor itself has."""
    return {key: value for key, value in extra_specs.items() if _SUFFIX not in key.partition(":")[0]}


def group_of(suffix: str) -> int | None:
    """Return which group of a profile a request group is; None when it is none's."""
    number = suffix.removeprefix(_SUFFIX)
    return int(number) if suffix.startswith(_SUFFIX) and number.isdecimal() else None


def amounts(extra_specs: Mapping[str, str]) -> list[tuple[int, str, int]]:
    """Return what a server's profile asked for: group, resource class and amount, in order."""
    asked = []
    for key, amount in extra_specs.items():
        kind, _, class_ = key.partition(":")
        number = group_of(kind.removeprefix("resources")) if kind.startswith("resources") else None
        if number is not None:
            asked.append((number, class_, int(amount)))
    return sorted(asked)


def spelled(group: Mapping[str, Any], suffix: str) -> dict[str, str]:
    """Return what a flavor would say to ask for a group, as the request group of a suffix."""
    parts = {key: key.partition(":") for key in group}
    return {f"{kind}{suffix}:{name}": str(group[key]) for key, (kind, _, name) in parts.items()}


def _extra_specs(groups: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    each = [spelled(group, f"{_SUFFIX}{number}") for number, group in enumerate(groups)]
    return {key: value for specs in each for key, value in specs.items()}
