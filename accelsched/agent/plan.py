# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What to do about the difference between what is wanted on a host and what is there. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from accelsched import wire
from accelsched.agent.virt.base import NO_ORDER, CarriedOut, Launch, Power, PresentServer

# As in wire.Observation.
State = Literal["building", "active", "stopped", "paused", "suspended", "rescued", "awaited", "error", "gone"]


@dataclass(frozen=True)
class OwnedDevice:
    """Something a device driver made."""

    driver: str  # name of the driver
    mark: str
    server_uuid: str | None  # None: nobody's
    spare: bool = False  # its server is wanted, but with other devices


@dataclass(frozen=True)
class Present:
    """What is on a host and carries our mark."""

    servers: Collection[PresentServer] = ()
    devices: Collection[OwnedDevice] = ()


@dataclass(frozen=True)
class Failure:
    """A build that failed, and what exactly was to be built."""

    fingerprint: str
    fault: wire.Fault


@dataclass(frozen=True)
class Work:
    """What is being done about a server at this moment."""

    builds: bool  # it is being built or resumed, else removed


@dataclass(frozen=True)
class Build:
    """Make the server, or finish making it."""

    assignment: wire.Assignment


@dataclass(frozen=True)
class Await:
    """Make ready for a server that is to come while it runs."""

    assignment: wire.Assignment


@dataclass(frozen=True)
class Hasten:
    """Have a server that is on its way to another host stand still, so that it gets there."""

    server_uuid: str


@dataclass(frozen=True)
class Resume:
    """Start a server again that ran before; it has a disk with its owner's data on it, so nothing is ever removed."""

    assignment: wire.Assignment


@dataclass(frozen=True)
class Complete:
    """Give a server that runs back what its guest let go of for it to be suspended, which it was not."""

    assignment: wire.Assignment


@dataclass(frozen=True)
class Obey:
    """Carry out the server's last order."""

    assignment: wire.Assignment


@dataclass(frozen=True)
class Plug:
    """Attach to the server what it is to have besides, and detach what it is to have no longer."""

    assignment: wire.Assignment
    state: State
    order: CarriedOut = NO_ORDER


@dataclass(frozen=True)
class Remove:
    """Remove everything there is of a server; ``announce``: say so when it is gone."""

    server_uuid: str
    announce: bool


@dataclass(frozen=True)
class RemoveDevice:
    """Remove something a device driver made that is nobody's."""

    driver: str
    mark: str


@dataclass(frozen=True)
class Cancel:
    """Interrupt the build of a server that is not wanted any more, or the migration of one that is to stay."""

    server_uuid: str


@dataclass(frozen=True)
class Observe:
    """Nothing to do but to say how the server is."""

    server_uuid: str
    state: State
    fault: wire.Fault | None = None
    order: CarriedOut = NO_ORDER
    incarnation: int = 1
    plugs: tuple[str, ...] | None = None  # accelerators that are attached; None: it has none and is to have none
    let_go: tuple[str, ...] = ()  # those of them that the guest let go of late


@dataclass(frozen=True)
class Tidy:
    """Remove what a server has and needs no more since it got another size, then say how it is."""

    assignment: wire.Assignment
    then: Observe


Action = Build | Await | Resume | Complete | Obey | Hasten | Plug | Remove | RemoveDevice | Tidy | Cancel | Observe


def fingerprint(assignment: wire.Assignment) -> str:
    """Return a digest of what an assignment asks for; what its owner calls the server, or told it to do once it is
    there, is no part of that."""
    asked = {key: value for key, value in assignment.items() if key not in {"name", "metadata", "order", "leaving"}}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def plan(
    assignments: Iterable[wire.Assignment],
    present: Present,
    *,
    failures: Mapping[str, Failure] | None = None,
    work: Mapping[str, Work] | None = None,
    resume: bool = True,
) -> list[Action]:
    """Return what to do on one host, at most one action for each server and a report beside it.

    :param assignments: everything wanted on this host, freshly fetched: what is not in it is wanted by nobody
    :param present: what is on the host
    :param failures: builds that failed, by server uuid; one is not tried again until its assignment changes
    :param work: what is being done at this moment, by server uuid; such servers are left alone
    :param resume: start servers again that the host's reboot stopped
    """
    failures, work = failures or {}, work or {}
    wanted = {assignment["server_uuid"]: assignment for assignment in assignments}
    servers = {server.uuid: server for server in present.servers}
    owned: dict[str, list[OwnedDevice]] = {}
    for device in present.devices:
        if device.server_uuid is not None:
            owned.setdefault(device.server_uuid, []).append(device)
    actions: list[Action] = []
    for uuid in sorted(wanted.keys() | servers.keys() | owned.keys() | work.keys()):
        assignment = wanted.get(uuid)
        keep = assignment is not None and assignment["desired"] == "active"
        if uuid in work:
            actions += _meanwhile(uuid, work[uuid], assignment if keep else None)
        elif assignment is not None and keep:
            actions += _keep(assignment, servers.get(uuid), owned.get(uuid, []), failures.get(uuid), resume)
        elif uuid in servers or uuid in owned:
            actions.append(Remove(uuid, announce=assignment is not None))
        elif assignment is not None:
            actions.append(Observe(uuid, "gone"))
    actions += [RemoveDevice(device.driver, device.mark) for device in present.devices if device.server_uuid is None]
    return actions


def _meanwhile(uuid: str, work: Work, assignment: wire.Assignment | None) -> list[Action]:
    """Return what to do about a server that something is being done about.

    :param assignment: None when it is not wanted any more
    """
    if not work.builds:
        return []
    live = None if assignment is None else assignment.get("order", {}).get("live")
    if assignment is None or (live is not None and live.get("abort")):
        return [Cancel(uuid)]
    return [Hasten(uuid)] if live is not None and live.get("force") else []


_STATES: dict[Power, State] = {
    Power.RUNNING: "active",
    Power.PAUSED: "paused",
    Power.STOPPED: "stopped",
    Power.SUSPENDED: "suspended",
    Power.ABSENT: "stopped",
}


def _keep(
    assignment: wire.Assignment,
    server: PresentServer | None,
    devices: Sequence[OwnedDevice],
    failure: Failure | None,
    resume: bool,
) -> list[Action]:
    """Return what to do about a server that is to be there."""
    uuid, incarnation = assignment["server_uuid"], assignment.get("incarnation", 1)
    if server is not None and server.incarnation < incarnation:
        return [Remove(uuid, announce=False)]  # and built when it is gone
    launched = server is not None and server.launch is not Launch.NEVER
    if failure is not None and failure.fingerprint == fingerprint(assignment) and not launched:
        remains = server is not None or devices
        removal: list[Action] = [Remove(uuid, announce=False)] if remains else []
        return [*removal, Observe(uuid, "error", failure.fault, incarnation=incarnation)]
    if server is None or server.launch is Launch.NEVER:
        return [_begin(assignment, server)]
    order = assignment.get("order")
    if order is not None and order["number"] > server.order.number:
        return [Obey(assignment)]
    # What stopped by itself was stopped by its user from within, and stays so; a reboot of the host is nobody's wish.
    cut_off = server.power is Power.ABSENT or (server.power is Power.STOPPED and server.launch is Launch.EARLIER_BOOT)
    if cut_off and resume and (order is None or order["power"] in ("running", "rescued")):
        return [Resume(assignment)]
    return _settled(assignment, server, any(device.spare for device in devices))


def _begin(assignment: wire.Assignment, server: PresentServer | None) -> Action:
    """Return what to do about a server that has not run here."""
    awaited = server is not None and server.awaited
    if "incoming" in assignment:
        seen = Observe(assignment["server_uuid"], "awaited", incarnation=assignment.get("incarnation", 1))
        return seen if awaited else Await(assignment)
    if server is not None and awaited and server.power is not Power.ABSENT:
        return Resume(assignment)  # it came as it runs: nothing of it is made, nor removed if that fails
    return Build(assignment)


def _settled(assignment: wire.Assignment, server: PresentServer, spare: bool) -> list[Action]:
    """Return what to do about a server that has obeyed all its orders.

    :param spare: it has devices that are not its own any more
    """
    uuid, incarnation = assignment["server_uuid"], assignment.get("incarnation", 1)
    kept = assignment["kept_disk"]["id"] if "kept_disk" in assignment else None
    state = "rescued" if server.rescued else _STATES[server.power]
    seen = Observe(
        *(uuid, state),
        order=server.order,
        incarnation=incarnation,
        plugs=_plugged(assignment, server),
        let_go=tuple(sorted(server.let_go)),
    )
    if server.lacks and server.power is Power.RUNNING:
        return [Complete(assignment)]
    if _plugs_differ(assignment, server):
        return [Plug(assignment, state, server.order)]
    if spare or server.kept_disks - {kept}:
        # What an order made superfluous is free once it is gone; until then the order is not said to be carried out.
        return [Tidy(assignment, then=seen), replace(seen, order=NO_ORDER)]
    return [seen]


def _plugged(assignment: wire.Assignment, server: PresentServer) -> tuple[str, ...] | None:
    """Return which accelerators are attached to a server; None for one that has none and is to have none."""
    known = [device["plug"] for device in assignment["devices"] if "plug" in device]
    if not known and not server.plugs:
        return None
    leaving = {plug["id"] for plug in known if plug["leaves"]}
    # What leaves is there until nothing is left of it, what comes is not until it is attached.
    return tuple(sorted(plug for plug, attached in server.plugs.items() if attached or plug in leaving))


def _plugs_differ(assignment: wire.Assignment, server: PresentServer) -> bool:
    """Tell whether something is to be attached to a server, or detached, and can be now."""
    known = [device["plug"] for device in assignment["devices"] if "plug" in device]
    wanted = dict.fromkeys((plug["id"] for plug in known if not plug["leaves"]), True)
    can_change = server.power in (Power.RUNNING, Power.STOPPED) and not server.rescued
    return can_change and wanted != dict(server.plugs)
