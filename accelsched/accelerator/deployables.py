# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices as Cyborg's users see them: each is a device with one deployable, and its traits are its attributes.

Operators may add attributes, for people and their tools to read: a scheduler knows nothing of them. So none may be
called what the agents' are.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import uuid
from collections import defaultdict
from collections.abc import Sequence

from oslo_db import exception as db_exception
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.accelerator import ids
from accelsched.compute import devices
from accelsched.compute.devices import HostDevice
from accelsched.db.accelerator import DeviceAttribute
from accelsched.db.placement import ProviderTrait, ResourceProvider, Trait

_MOST = 256  # attributes of a device that its agent reports
_MOST_ADDED = 64
_REPORTED = re.compile(r"rc|trait[0-9]*", re.IGNORECASE)
BY_AGENTS = "Attributes {} are what agents report; set traits of your own with 'openstack resource provider trait set'."


@dataclasses.dataclass(frozen=True)
class Deployable:
    """A device, what it is, and since when it is known."""

    found: HostDevice
    traits: Sequence[str]  # sorted
    added: Sequence[DeviceAttribute]  # by operators, in order
    created_at: datetime.datetime
    updated_at: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Attribute:
    """Something that is said of a device."""

    uuid: str
    deployable: Deployable
    key: str
    value: str
    since: datetime.datetime | None = None  # None: as long as the device


def list_(session: Session, *, host: str | None = None, most: int) -> list[Deployable]:
    """Return devices in the order in which they were first reported.

    :param session: a snapshot
    :param host: of this host alone; None for all
    :raises accelsched.errors.NotFoundError: there is no such host
    """
    return _deployables(session, devices.page(session, host=host, limit=most))


def get(session: Session, device_uuid: str) -> Deployable:
    """Return one.

    :raises accelsched.errors.NotFoundError: there is none
    """
    return _deployables(session, [devices.get(session, device_uuid)])[0]


def attributes_of(deployable: Deployable) -> list[Attribute]:
    """Return what is said of a device: its resource classes, its traits, then what operators say."""
    classes = sorted(deployable.found.device.inventories)
    said = [("rc", name) for name in classes]
    said += [(f"trait{number}", trait) for number, trait in enumerate(deployable.traits)]
    of = deployable.found.device.uuid
    reported = [Attribute(ids.of_part(of, place), deployable, *what) for place, what in enumerate(said, start=1)]
    return reported + [Attribute(one.uuid, deployable, one.key, one.value, one.created_at) for one in deployable.added]


def attribute(session: Session, attribute_uuid: str) -> Attribute:
    """Return one.

    :raises accelsched.errors.NotFoundError: there is none
    """
    missing = errors.NotFoundError(f"There is no attribute {attribute_uuid[:100]}.")
    added = select(ResourceProvider.uuid).join(DeviceAttribute, DeviceAttribute.provider_id == ResourceProvider.id)
    of = session.scalar(added.where(DeviceAttribute.uuid == attribute_uuid))
    if of is not None:
        return next(one for one in attributes_of(get(session, of)) if one.uuid == attribute_uuid)
    try:
        owners = ids.owners(attribute_uuid, _MOST)
    except ValueError as exc:
        raise missing from exc
    known = session.scalars(select(ResourceProvider.uuid).where(ResourceProvider.uuid.in_(owners)))
    for device_uuid in known.all():
        try:
            said = attributes_of(get(session, device_uuid))
        except errors.NotFoundError:
            continue  # a provider, but no device
        if found := next((one for one in said if one.uuid == owners[device_uuid]), None):
            return found
    raise missing


def add_attribute(session: Session, deployable: str, *, key: str, value: str) -> Attribute:
    """Say something of a device.

    :param deployable: its number, or its uuid
    :raises accelsched.errors.NotFoundError: there is no such device
    :raises accelsched.errors.InvalidError: an agent's attributes are called so
    :raises accelsched.errors.ConflictError: it has one of this name, or too many
    """
    if _REPORTED.fullmatch(key):
        raise errors.InvalidError(BY_AGENTS.format("rc and trait..."))
    named = ResourceProvider.id == int(deployable) if deployable.isdecimal() else ResourceProvider.uuid == deployable
    # Locked, so that two do not count at the same time.
    provider = session.scalar(select(ResourceProvider).where(named).with_for_update())
    if provider is None:
        raise errors.NotFoundError(f"There is no deployable {deployable}.")
    get(session, provider.uuid)
    query = select(func.count()).select_from(DeviceAttribute).where(DeviceAttribute.provider_id == provider.id)
    if (session.scalar(query) or 0) >= _MOST_ADDED:
        raise errors.ConflictError(f"Deployable {deployable} has {_MOST_ADDED} attributes of operators; delete some")
    made = DeviceAttribute(uuid=str(uuid.uuid4()), provider_id=provider.id, key=key, value=value)
    session.add(made)
    try:
        session.flush()
    except db_exception.DBDuplicateEntry as exc:
        raise errors.DuplicateNameError(f"Deployable {deployable} has an attribute {key} already; delete that") from exc
    return attribute(session, made.uuid)


def remove_attribute(session: Session, attribute_uuid: str) -> None:
    """Take back something that an operator said of a device.

    :raises accelsched.errors.NotFoundError: there is no such attribute
    :raises accelsched.errors.ForbiddenError: its agent reports it
    """
    found = session.scalar(select(DeviceAttribute).where(DeviceAttribute.uuid == attribute_uuid))
    if found is None:
        raise errors.ForbiddenError(BY_AGENTS.format(f"like {attribute(session, attribute_uuid).key}"))
    session.delete(found)


def _deployables(session: Session, found: Sequence[HostDevice]) -> list[Deployable]:
    numbers = [one.device.id for one in found]
    traits: dict[int, list[str]] = defaultdict(list)
    query = select(ProviderTrait.provider_id, Trait.name).join(Trait, Trait.id == ProviderTrait.trait_id)
    for provider_id, name in session.execute(query.where(ProviderTrait.provider_id.in_(numbers)).order_by(Trait.name)):
        traits[provider_id].append(name)
    added: dict[int, list[DeviceAttribute]] = defaultdict(list)
    of_operators = select(DeviceAttribute).where(DeviceAttribute.provider_id.in_(numbers)).order_by(DeviceAttribute.id)
    for said in session.scalars(of_operators):
        added[said.provider_id].append(said)
    times = select(ResourceProvider.id, ResourceProvider.created_at, ResourceProvider.updated_at)
    moments = {row.id: row for row in session.execute(times.where(ResourceProvider.id.in_(numbers)))}
    return [
        Deployable(
            one,
            traits[one.device.id],
            added[one.device.id],
            moments[one.device.id].created_at,
            moments[one.device.id].updated_at,
        )
        for one in found
    ]
