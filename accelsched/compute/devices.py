# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices of hosts, for those who look after them; and what is told to servers whose devices are lost or back."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import instance_actions
from accelsched.db.compute import Host, Server
from accelsched.placement import device_status
from accelsched.placement.device_status import Device, Status

_EVENT = "compute_device_health"


@dataclasses.dataclass(frozen=True)
class HostDevice:
    """A device and the host that it is in."""

    host: str
    device: Device


def page(
    session: Session,
    *,
    host: str | None = None,
    status: Status | None = None,
    marker: str | None = None,
    limit: int,
) -> list[HostDevice]:
    """Return devices in the order in which they were first reported.

    :param session: a snapshot
    :param marker: uuid of the last device of the page before
    :raises accelsched.errors.NotFoundError: there is no such host
    :raises accelsched.errors.InvalidError: the marker is no device
    """
    root_uuid = None
    if host is not None:
        root_uuid = session.scalar(select(Host.node_uuid).where(Host.name == host))
        if root_uuid is None:
            raise errors.NotFoundError(f"there is no host {host}")
    after = 0
    if marker is not None:
        try:
            after = device_status.get(session, marker).id
        except errors.NotFoundError as exc:
            raise errors.InvalidError(f"marker {marker[:100]!r} is no device") from exc
    return _with_hosts(
        session, device_status.page(session, root_uuid=root_uuid, status=status, after=after, limit=limit)
    )


def get(session: Session, device_uuid: str) -> HostDevice:
    """Return one device.

    :raises accelsched.errors.NotFoundError: there is none
    """
    return _with_hosts(session, [device_status.get(session, device_uuid)])[0]


def disable(session: Session, device_uuid: str) -> HostDevice:
    """Let nothing new onto a device; return it as it is then.

    :raises accelsched.errors.NotFoundError: there is none
    """
    device_status.disable(session, device_uuid)
    return get(session, device_uuid)


def enable(session: Session, device_uuid: str) -> HostDevice:
    """Let a device take something new again; return it as it is then.

    :raises accelsched.errors.NotFoundError: there is none
    """
    # The host first, as reports lock it before its providers.
    device = device_status.get(session, device_uuid)
    reported = session.scalar(select(Host.reported).where(Host.node_uuid == device.root_uuid).with_for_update())
    device_status.enable(session, device_uuid, (reported or {}).get(device_uuid))
    return get(session, device_uuid)


def tell_servers(session: Session, host: str, told: Mapping[str, str | None]) -> None:
    """Write down, among the actions of servers, that devices they have are lost, or back.

    :param told: by the device's uuid, what is wrong with it; None when it is back
    """
    if not told:
        return
    for server in session.scalars(select(Server).where(Server.host == host, Server.deleted_at.is_(None))):
        for provider in sorted({held["provider_uuid"] for held in server.devices} & told.keys()):
            fault = told[provider]
            origin = instance_actions.Origin(f"req-{uuid.uuid4()}", server.project_id, server.user_id)
            action = "device-back" if fault is None else "device-lost"
            instance_actions.begin(session, [server.id], action, origin, event=_EVENT, host=host)
            instance_actions.finish(
                session,
                [server.id],
                action=action,
                host=host,
                fault=None if fault is None else {"message": fault, "details": ""},
            )


def _with_hosts(session: Session, devices: Sequence[Device]) -> list[HostDevice]:
    roots = {device.root_uuid for device in devices}
    of_roots = select(Host.node_uuid, Host.name).where(Host.node_uuid.in_(roots))
    hosts = dict(session.execute(of_roots).all())
    return [HostDevice(hosts.get(device.root_uuid, ""), device) for device in devices]
