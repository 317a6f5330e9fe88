# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices as Cyborg's users see them: each is a device with one deployable, and its traits are its attributes."""

from __future__ import annotations

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.accelerator import ids
from accelsched.compute import devices
from accelsched.compute.devices import HostDevice
from accelsched.db.placement import ProviderTrait, ResourceProvider, Trait

_MOST = 256  # attributes of a device


@dataclasses.dataclass(frozen=True)
class Deployable:
    """A device, what it is, and since when it is known."""

    found: HostDevice
    traits: Sequence[str]  # sorted
    created_at: datetime.datetime
    updated_at: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Attribute:
    """Something that is said of a device."""

    uuid: str
    deployable: Deployable
    key: str
    value: str


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
    """Return what is said of a device: its resource classes, then its traits."""
    classes = sorted(deployable.found.device.inventories)
    said = [("rc", name) for name in classes]
    said += [(f"trait{number}", trait) for number, trait in enumerate(deployable.traits)]
    of = deployable.found.device.uuid
    return [Attribute(ids.of_part(of, place), deployable, *what) for place, what in enumerate(said, start=1)]


def attribute(session: Session, attribute_uuid: str) -> Attribute:
    """Return one.

    :raises accelsched.errors.NotFoundError: there is none
    """
    missing = errors.NotFoundError(f"There is no attribute {attribute_uuid[:100]}.")
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


def _deployables(session: Session, found: Sequence[HostDevice]) -> list[Deployable]:
    ids = [one.device.id for one in found]
    traits: dict[int, list[str]] = defaultdict(list)
    query = select(ProviderTrait.provider_id, Trait.name).join(Trait, Trait.id == ProviderTrait.trait_id)
    for provider_id, name in session.execute(query.where(ProviderTrait.provider_id.in_(ids)).order_by(Trait.name)):
        traits[provider_id].append(name)
    times = select(ResourceProvider.id, ResourceProvider.created_at, ResourceProvider.updated_at)
    moments = {row.id: row for row in session.execute(times.where(ResourceProvider.id.in_(ids)))}
    return [
        Deployable(one, traits[one.device.id], moments[one.device.id].created_at, moments[one.device.id].updated_at)
        for one in found
    ]
