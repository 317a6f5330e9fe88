# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerators that a server is given, and gives back, while it goes on.

What a server is to have is written in its row (``devices``, where what is attached has a *plug*) and held by the server
as a consumer, in one transaction. Its agent makes it so, and says what the server has: only then is an accelerator
*attached*, and only when it is there no more is it free.

=============  ========================================  ==========================================
state          what is waited for                        then
=============  ========================================  ==========================================
attaching      its agent has attached it, or could not   attached; or it is the server's no longer
attached       its owner
detaching      the guest has let it go, or did not       it is the server's no longer; or attached
=============  ========================================  ==========================================

A guest that did not let go in time may do so later. Then the accelerator is detaching again, by itself.

Those asked for together are attached, or detached, together; while they are, no others. They stay with the server on
its host, whatever it does there; a server that has some does not leave it, but for an evacuation, which loses them with
the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.compute import hosts, servers
from accelsched.db import bindings, instance_actions
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Server
from accelsched.placement import allocations, capacity_rules, claims

ATTACHING, ATTACHED, DETACHING = "attaching", "attached", "detaching"
_ATTACH, _DETACH = "attachAccelerator", "detachAccelerator"
_VM_STATES = frozenset({"active", "stopped"})
_MOST = 16  # of one server
_SINCE = "1.1"  # version of accelsched.wire from which on agents understand it


@dataclass(frozen=True)
class Wanted:
    """An accelerator that a server is to have, before a device is chosen.

    :ivar extra_specs: what a flavor would say to ask for it, of its request group
    :ivar provider: uuid of the device that it is to be of; None for any
    """

    id: str
    extra_specs: Mapping[str, str]
    provider: str | None = None


def suffix_of(accelerator_id: str) -> str:
    """Return the suffix of an accelerator's request group."""
    return f"_{accelerator_id}"


@dataclass(frozen=True)
class Chosen:
    """An accelerator that a scheduler has chosen for a server on its host."""

    id: str
    host: str
    extra_specs: Mapping[str, str]  # what was asked, as a flavor would say it
    devices: Sequence[Mapping[str, Any]]  # wire.DeviceAllocation, one or more
    allocations: Mapping[str, Mapping[str, int]]  # amount by provider uuid and class


def plugged(server: Server) -> list[dict[str, Any]]:
    """Return the devices of a server that were plugged in."""
    return [device for device in server.devices if "plug" in device]


def ready(session: Session, uuid: str, *, project_id: str | None, admin: bool, action: str = _ATTACH) -> Server:
    """Return a server that an accelerator may be attached to, or detached from, now; locked.

    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: saying what stands against it
    """
    server = servers.alive(session, uuid, project_id)
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, action, _VM_STATES)
    if server.host is None or server.launched_at is None:
        raise errors.ConflictError(f"Cannot '{action}' instance {uuid}: it has never been active")
    if server.migration_id is not None:
        raise errors.ConflictError(f"Cannot '{action}' instance {uuid}: its resize or migration is not over")
    host = session.scalars(select(Host).where(Host.name == server.host)).one()
    hosts.check_understands(host, _SINCE, action, uuid)
    for device in plugged(server):
        if device["plug"]["state"] != ATTACHED:
            state = device["plug"]["state"]
            raise errors.ConflictError(f"Cannot '{action}' instance {uuid} while an accelerator is {state}")
    return server


def attach(
    session: Session,
    uuid: str,
    chosen: Sequence[Chosen],
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
) -> list[tuple[str, str]]:
    """Claim accelerators for a server, and have them attached.

    :returns: (agent, host) to tell, none when nobody is there to be told
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: as :func:`ready` says; or the server is elsewhere by now
    :raises accelsched.errors.CapacityExceededError: somebody was quicker
    """
    server = ready(session, uuid, project_id=project_id, admin=admin)
    for one in chosen:
        if server.host != one.host:
            raise errors.ConflictError(f"Instance {uuid} is not on host {one.host} any more")
    has = len(plugged(server))
    if has + len(chosen) > _MOST:
        raise errors.ConflictError(f"Instance {uuid} has {has} accelerators attached already; {_MOST} is the most")
    amounts = _sum([one.allocations for one in chosen])
    _hold(session, server, amounts, 1)
    classes = {(uuid_, name) for uuid_, of_provider in amounts.items() for name in of_provider}
    if classes & capacity_rules.positions_of(session, [server.uuid]).get(server.uuid, {}).keys():
        raise errors.ConflictError("Slices that have a position on their GPU cannot be attached to a running server")
    plugs = [
        {**device, "plug": {"id": one.id, "state": ATTACHING, "extra_specs": dict(one.extra_specs)}}
        for one in chosen
        for device in one.devices
    ]
    server.devices = [*server.devices, *plugs]
    return _begin(session, server, _ATTACH, "compute_attach_accelerator", origin)


def detach(
    session: Session,
    uuid: str,
    accelerator_ids: Collection[str],
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
) -> list[tuple[str, str]]:
    """Have accelerators detached that were attached before.

    :returns: (agent, host) to tell, none when nobody is there to be told
    :raises accelsched.errors.NotFoundError: when there is no such server, or it has no such accelerator
    :raises accelsched.errors.ConflictError: as :func:`ready` says
    """
    server = servers.alive(session, uuid, project_id)
    known = {device["plug"]["id"] for device in plugged(server)}
    for accelerator_id in accelerator_ids:
        if accelerator_id not in known:
            raise errors.NotFoundError(f"Instance {uuid} has no accelerator {accelerator_id} that was attached to it")
    ready(session, uuid, project_id=project_id, admin=admin, action=_DETACH)
    for accelerator_id in accelerator_ids:
        _set_state(server, accelerator_id, DETACHING)
    return _begin(session, server, _DETACH, "compute_detach_accelerator", origin)


def _begin(
    session: Session, server: Server, action: str, event: str, origin: instance_actions.Origin
) -> list[tuple[str, str]]:
    server.updated_at = utcnow()
    instance_actions.begin(session, [server.id], action, origin, event=event, host=server.host)
    told = servers.agent_of(session, server)
    return [] if told is None else [told]


def check_none(server: Server, action: str) -> None:
    """Refuse to have a server leave its host with accelerators that belong there.

    :raises accelsched.errors.ConflictError: when some were attached to it
    """
    if plugged(server):
        raise errors.ConflictError(
            f"Cannot '{action}' instance {server.uuid}: accelerators were attached to it, which stay with its host. "
            "Remove them first."
        )


def abandon(session: Session, server: Server) -> None:
    """Note that what was being attached or detached is lost, with the host of the server."""
    _end(session, server, {"message": "The server's host was lost meanwhile.", "details": ""}, _ATTACH, _DETACH)


def observed(session: Session, server: Server, seen: wire.Observation) -> None:
    """Take over which accelerators a server has, and which could not be attached or detached."""
    present, faults = seen.get("plugs"), seen.get("plug_faults", {})
    for accelerator_id, state in {(one["plug"]["id"], one["plug"]["state"]) for one in plugged(server)}:
        fault = faults.get(accelerator_id)
        there = None if present is None else accelerator_id in present
        if state == ATTACHING and there:
            _set_state(server, accelerator_id, ATTACHED)
            _end_if_last(session, server, state)
        elif state == ATTACHING and fault is not None:
            _let_go(session, server, accelerator_id)
            bindings.ended(session, accelerator_id, failed=True)
            _end(session, server, fault, _ATTACH)
        elif state == DETACHING and there is False:
            _let_go(session, server, accelerator_id)
            bindings.ended(session, accelerator_id, failed=False)
            _end_if_last(session, server, state)
        elif state == DETACHING and fault is not None:
            _set_state(server, accelerator_id, ATTACHED)
            bindings.kept(session, accelerator_id)
            _end(session, server, fault, _DETACH)
    _let_go_late(session, server, seen.get("let_go", []))


def _let_go_late(session: Session, server: Server, let_go: Sequence[str]) -> None:
    """Have an accelerator detached, as its owner wanted before, that the guest has let go of by now."""
    states = {one["plug"]["id"]: one["plug"]["state"] for one in plugged(server)}
    late = [accelerator_id for accelerator_id in let_go if states.get(accelerator_id) == ATTACHED]
    if late and server.migration_id is None and set(states.values()) == {ATTACHED}:
        _set_state(server, late[0], DETACHING)
        origin = instance_actions.Origin(f"req-{uuid4()}", server.project_id, server.user_id)
        _begin(session, server, _DETACH, "compute_detach_accelerator", origin)


def gone(session: Session, server: Server) -> None:
    """Note that a server is gone, and what was attached to it is nobody's."""
    bindings.server_gone(session, server.id, {device["plug"]["id"] for device in plugged(server)})


def _end_if_last(session: Session, server: Server, state: str) -> None:
    """Finish what was begun when all of it has got out of a state; what failed of it has finished it before."""
    if all(device["plug"]["state"] != state for device in plugged(server)):
        _end(session, server, None, _ATTACH if state == ATTACHING else _DETACH)


def _set_state(server: Server, accelerator_id: str, state: str) -> None:
    server.devices = [
        {**device, "plug": {**device["plug"], "state": state}}
        if device.get("plug", {}).get("id") == accelerator_id
        else device
        for device in server.devices
    ]


def _let_go(session: Session, server: Server, accelerator_id: str) -> None:
    """Give back what a server holds for an accelerator, and forget that."""
    leaves = [device for device in plugged(server) if device["plug"]["id"] == accelerator_id]
    for device in leaves:
        _hold(session, server, {device["provider_uuid"]: device["resources"]}, -1)
    server.devices = [device for device in server.devices if device not in leaves]


def _sum(each: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, Counter[str]]:
    """Return amounts by provider and class, added up."""
    total: dict[str, Counter[str]] = {}
    for amounts in each:
        for uuid, resources in amounts.items():
            total.setdefault(uuid, Counter()).update(resources)
    return total


def _hold(session: Session, server: Server, amounts: Mapping[str, Mapping[str, int]], sign: int) -> None:
    """Have a server hold more, or less, of some providers.

    :param sign: 1 for more, -1 for less
    """
    held = allocations.of_consumer(session, server.uuid)
    wanted = {uuid: dict(share.resources) for uuid, share in held.shares.items()}
    for uuid, resources in amounts.items():
        of_provider = wanted.setdefault(uuid, {})
        for name, amount in resources.items():
            of_provider[name] = max(of_provider.get(name, 0) + sign * amount, 0)
    left = {uuid: {name: amount for name, amount in resources.items() if amount} for uuid, resources in wanted.items()}
    claims.replace(
        session,
        [
            claims.ConsumerAllocation(
                *(server.uuid, server.project_id, server.user_id),
                {uuid: resources for uuid, resources in left.items() if resources},
            )
        ],
    )


def _end(session: Session, server: Server, fault: wire.Fault | None, *actions: str) -> None:
    for action in actions:
        instance_actions.finish(session, [server.id], action=action, host=server.host, fault=fault)
