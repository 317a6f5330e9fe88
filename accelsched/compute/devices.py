# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices of hosts, for those who look after them; and what their servers are told of devices' faults.

What is wrong with its devices a host's row says. A server has the faults of those that it has just now.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.db import instance_actions
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Server, as_iso
from accelsched.placement import device_status, trees
from accelsched.placement.device_status import Device, Status

_EVENT = "compute_device_health"

Faults = dict[str, dict[str, str]]
"""Of devices by uuid: ``reason``, the end of a sentence about it, and ``since``."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with a device of a server."""

    provider_uuid: str
    provider_name: str
    resources: Mapping[str, int]  # of it, that the server has
    reason: str  # the end of a sentence about it
    since: str


@dataclasses.dataclass(frozen=True)
class HostDevice:
    """A device and the host that it is in."""

    host: str
    device: Device
    fault: str | None  # what is wrong with it


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
    device_status.disable(session, device_uuid, _reported(session, device_uuid))
    return get(session, device_uuid)


def enable(session: Session, device_uuid: str) -> HostDevice:
    """Let a device take something new again; return it as it is then.

    :raises accelsched.errors.NotFoundError: there is none
    """
    device_status.enable(session, device_uuid, _reported(session, device_uuid))
    return get(session, device_uuid)


def _reported(session: Session, device_uuid: str) -> wire.ProviderReport | None:
    """Return what its agent said last of a device, its host locked: as reports do, before its providers."""
    device = device_status.get(session, device_uuid)
    reported = session.scalar(select(Host.reported).where(Host.node_uuid == device.root_uuid).with_for_update())
    return (reported or {}).get(device_uuid)


def note_faults(session: Session, host: Host, reasons: Mapping[str, str]) -> None:
    """Keep what is wrong with a host's devices, and write among the actions of their servers what is new of it.

    :param reasons: all that is wrong now, by the device's uuid
    """
    before: Faults = host.device_faults or {}
    now = as_iso(utcnow())
    host.device_faults = {
        uuid_: before[uuid_] if before.get(uuid_, {}).get("reason") == reason else {"reason": reason, "since": now}
        for uuid_, reason in reasons.items()
    } or None
    new = {uuid_: reason for uuid_, reason in reasons.items() if (host.device_faults or {})[uuid_] != before.get(uuid_)}
    _tell_servers(session, host.name, {**dict.fromkeys(before.keys() - reasons.keys()), **new})


def with_faults(session: Session, names: Collection[str]) -> list[str]:
    """Return those of some hosts that have devices with which something is wrong."""
    return list(session.scalars(select(Host.name).where(Host.name.in_(names), Host.device_faults.is_not(None))))


def end_shortfalls(session: Session, name: str) -> None:
    """Have a host's devices that have enough again, because a server left, be well again.

    Its agent reports nothing new then: what the devices have is what it was.
    """
    host = session.scalars(select(Host).where(Host.name == name).with_for_update()).one_or_none()
    if host is None or host.device_faults is None:
        return
    short = trees.shortfalls(session, host.reported)
    others = {
        uuid_: fault["reason"]
        for uuid_, fault in host.device_faults.items()
        if "fault" in host.reported.get(uuid_, {"fault": "it is gone"})
    }
    note_faults(session, host, others | {uuid_: short[uuid_] for uuid_ in short if uuid_ in host.device_faults})


def faults_of(server: Server, host: Host | None) -> list[Fault]:
    """Return what is wrong with the devices that a server has where it is."""
    known: Faults = (host.device_faults if host else None) or {}
    return [
        Fault(held["provider_uuid"], held["provider_name"], held["resources"], **known[held["provider_uuid"]])
        for held in server.devices
        if held["provider_uuid"] in known
    ]


def count_faults(session: Session) -> int:
    """Return how many devices have a fault, of whatever kind, on all hosts."""
    return sum(map(len, session.scalars(select(Host.device_faults).where(Host.device_faults.is_not(None)))))


def _tell_servers(session: Session, host: str, told: Mapping[str, str | None]) -> None:
    if not told:
        return
    for server in session.scalars(select(Server).where(Server.host == host, Server.deleted_at.is_(None))):
        named = {held["provider_uuid"]: held["provider_name"] for held in server.devices}
        for provider in sorted(named.keys() & told.keys()):
            reason = told[provider]
            fault: wire.Fault | None = (
                None if reason is None else {"message": f"{named[provider]} {reason}", "details": ""}
            )
            origin = instance_actions.Origin(f"req-{uuid.uuid4()}", server.project_id, server.user_id)
            action = "device-back" if fault is None else "device-lost"
            instance_actions.begin(session, [server.id], action, origin, event=_EVENT, host=host)
            instance_actions.finish(
                session,
                [server.id],
                action=action,
                host=host,
                fault=fault,
            )


def _with_hosts(session: Session, devices: Sequence[Device]) -> list[HostDevice]:
    roots = {device.root_uuid for device in devices}
    rows = session.execute(select(Host.node_uuid, Host.name, Host.device_faults).where(Host.node_uuid.in_(roots)))
    hosts = {root: (name, faults or {}) for root, name, faults in rows}
    found = []
    for device in devices:
        name, faults = hosts.get(device.root_uuid, ("", {}))
        found.append(HostDevice(name, device, faults.get(device.uuid, {}).get("reason")))
    return found
