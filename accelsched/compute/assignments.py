# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wanted of servers on a host, and what its agent saw of them."""

from __future__ import annotations

import ipaddress
import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import select, union_all
from sqlalchemy.orm import Session

from accelsched import wire
from accelsched.compute import (
    accelerators,
    hearing,
    hosts,
    live_migration,
    moving,
    orders,
    programming,
    rebuilding,
    shelving,
    states,
)
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Migration, Server, as_iso
from accelsched.placement import claims


def of_hosts(session: Session, names: Sequence[str]) -> list[wire.Assignment]:
    """Return every server that these hosts hold or must tear down.

    Most are asked for what they were told before, many times a second. So what is there is found by narrow queries, and
    rows are read only of that.

    :param session: all of whose statements see the same: who came between two of them would be wanted on neither side
    """
    here = select(Server.id).where(Server.host.in_(names), Server.deleted_at.is_(None))
    ids = set(session.scalars(union_all(here, moving.set_aside(names), live_migration.coming(names))))
    if not ids:
        return []
    servers = session.scalars(select(Server).where(Server.id.in_(ids)).order_by(Server.id)).all()
    moves = moving.of_each(session, servers)
    there, aside, coming = [], [], []
    for server in servers:
        migration = moves.get(server.id)
        if server.host in names and server.deleted_at is None:
            there.append(_there(session, server, migration))
        if migration is not None and migration.source_host in names and moving.is_set_aside(server, migration):
            aside.append(_set_aside(server, migration))
        if migration is not None and migration.dest_host in names and live_migration.comes(migration):
            coming.append(_coming(session, server, migration))
    return there + aside + coming


def _there(session: Session, server: Server, migration: Migration | None) -> wire.Assignment:
    """Return what is wanted of a server on its host."""
    assignment = _assignment(server, leaves=moving.leaves_destination(server, migration))
    origin = moving.origin(server, migration)
    if origin is not None:
        assignment["origin"] = {"host": origin, "agent": hosts.agent_of(session, origin) or ""}
        if hosts.is_forced_down(session, origin):
            assignment["origin"]["lost"] = True
    if migration is not None and live_migration.comes(migration):
        assignment["leaving"] = True
    kept = moving.kept_disk(migration)
    if kept is not None:
        assignment["kept_disk"] = kept
    return assignment


def _set_aside(server: Server, migration: Migration) -> wire.Assignment:
    """Return what is wanted of a server where it comes from: to be left as it was, or removed."""
    source = migration.source
    assignment = _assignment(server, leaves=moving.leaves_source(server, migration))
    assignment |= {
        "host": migration.source_host,
        "flavor": source["flavor"],
        "devices": source["devices"],
        "order": source["order"],
        "incarnation": source["incarnation"],
        "numa": source["numa"] or [],
    }
    return assignment


def _coming(session: Session, server: Server, migration: Migration) -> wire.Assignment:
    """Return what is wanted of a server where it goes as it runs: that all is ready for it."""
    target, source = migration.target, migration.source_host
    assignment = _assignment(server)
    for key in ("order", "restore"):
        assignment.pop(key, None)  # type: ignore[misc]
    assignment |= {
        "host": migration.dest_host or "",
        "devices": target["devices"],
        "numa": target["numa"] or [],
        "incarnation": target["incarnation"],
        "incoming": {"host": source, "agent": hosts.agent_of(session, source) or ""},
    }
    return assignment


def _assignment(server: Server, *, leaves: bool = False) -> wire.Assignment:
    assignment: wire.Assignment = {
        "server_uuid": server.uuid,
        "host": server.host or "",
        "desired": "active" if server.desired == "active" and not leaves else "deleted",
        "name": server.name,
        "project_id": server.project_id,
        "user_id": server.user_id,
        "flavor": _flavor(server),
        "image": cast("wire.ImageSpec | None", server.image),
        "devices": [_device(device) for device in server.devices],
        "metadata": server.metadata_,
        "user_data": server.user_data,
        "config_drive": server.config_drive,
        "networks": cast("Literal['none', 'auto']", server.networks),
        "hostname": server.hostname,
        "key_name": server.key_name,
        "public_key": server.public_key,
        "created_at": as_iso(server.created_at) or "",
    }
    if server.power_order is not None:
        told = {key: value for key, value in server.power_order.items() if key in wire.PowerOrder.__annotations__}
        assignment["order"] = cast("wire.PowerOrder", told)
    if server.admin_pass is not None:
        assignment["admin_pass"] = server.admin_pass
    if server.numa:
        assignment["numa"] = cast("list[wire.NumaPlacedNode]", server.numa)
    if server.shelved_image is not None and server.incarnation > server.built:
        assignment["restore"] = cast("wire.ImageSpec", server.shelved_image)
    if server.incarnation > 1:
        assignment["incarnation"] = server.incarnation
    return assignment


def _flavor(server: Server) -> wire.FlavorSpec:
    """Return a server's flavor, with what was asked of accelerators that were attached to it."""
    flavor = cast("wire.FlavorSpec", server.flavor)
    asked = [device["plug"]["extra_specs"] for device in accelerators.plugged(server)]
    if not asked:
        return flavor
    return {
        **flavor,
        "extra_specs": dict(itertools.chain(flavor["extra_specs"].items(), *(one.items() for one in asked))),
    }


def _device(device: Mapping[str, Any]) -> wire.DeviceAllocation:
    if "plug" not in device:
        return cast("wire.DeviceAllocation", device)
    plug: wire.Plug = {"id": device["plug"]["id"], "leaves": device["plug"]["state"] == accelerators.DETACHING}
    return cast("wire.DeviceAllocation", {**device, "plug": plug})


class Moved(NamedTuple):
    """Other hosts have to do with the server now, and their agents are to be told."""

    hosts: Sequence[str]
    unplaced: bool = False  # and the server wants another one


Outcome = Literal["gone", "unplaced", "offloaded"] | Moved | None


def observe(session: Session, seen: wire.Observation, max_attempts: int, *, evacuates: bool = False) -> Outcome:
    """Take over what an agent saw of one server. What is no longer true of it is ignored.

    :param max_attempts: hosts on which a server's first build, or a live migration, is tried
    :param evacuates: servers leave hosts that are forced down
    :returns: ``gone`` when the server is gone from the host now, its allocations with it; ``unplaced`` when it wants
        another host; ``offloaded`` when it is to leave this one; Moved when another host has to do with it
    """
    server = session.scalars(select(Server).where(Server.uuid == seen["server_uuid"]).with_for_update()).one_or_none()
    if server is not None:
        heard = hearing.take(server.heard, seen["host"], seen.get("said"))
        if heard is None:
            return None
        server.heard = heard
    # An agent that was away may speak of a server that has been moved or removed since.
    if server is None or server.deleted_at is not None or server.host != seen["host"]:
        moving.source_seen(session, seen, server)
        step = live_migration.awaited(session, server, seen, max_attempts)
        return None if step is None else Moved(*step)
    server.updated_at = utcnow()
    server.detail = seen["detail"][:255]
    programming.observed(session, server, seen)
    if server.desired != "active":
        return _left(session, server) if seen["state"] == "gone" else None
    migration = moving.of(session, server)
    # What is gone is of no incarnation.
    if not moving.leaves_destination(server, migration) and not rebuilding.observed(session, server, seen):
        return None
    accelerators.observed(session, server, seen)
    moved = _on_its_way(session, server, migration, seen, max_attempts)
    if moved is not None:
        stranded = evacuates and migration is not None and _is_stranded(session, server, migration)
        return moved._replace(unplaced=True) if stranded else moved
    return _here(session, server, seen, max_attempts)


def _on_its_way(
    session: Session, server: Server, migration: Migration | None, seen: wire.Observation, max_attempts: int
) -> Moved | None:
    """Take over how far a server is that is under way.

    :returns: None when what was seen says how the server is, as ever
    """
    if migration is None:
        return None
    if moves.is_live(migration):
        step = live_migration.observed(session, server, migration, seen, max_attempts)
        return None if step is None else Moved(*step)
    if not moving.under_way(migration):
        return None
    host = moving.observed(session, server, migration, seen)
    return Moved([] if host is None else [host])


def _is_stranded(session: Session, server: Server, migration: Migration) -> bool:
    """Tell whether a move has just ended on the host that it began on, which is lost; the server leaves it then."""
    ended = server.migration_id is None and migration.status == "error" and server.host == migration.source_host
    if not ended or not hosts.is_forced_down(session, migration.source_host):
        return False
    origin = instance_actions.Origin(f"req-{uuid.uuid4()}", migration.project_id, migration.user_id)
    rebuilding.evacuate_stranded(session, server, origin)
    return True


def _here(
    session: Session, server: Server, seen: wire.Observation, max_attempts: int
) -> Literal["unplaced", "offloaded"] | None:
    """Take over how a server is that is not under way, and what it has obeyed; before and after a move, no order."""
    if server.migration_id is not None:
        return _stays(session, server, seen, max_attempts)
    shelves = server.task is not None and server.task.startswith("shelving")
    orders.observed(session, server, seen)
    if shelves and server.task is None and seen.get("order_fault") is None:
        shelving.offload(server)
        return "offloaded"
    return _stays(session, server, seen, max_attempts)


def _stays(session: Session, server: Server, seen: wire.Observation, max_attempts: int) -> Literal["unplaced"] | None:
    """Take over how a server is on the host that it is to be on."""
    match seen["state"]:
        case "gone":
            # Wanted, yet nothing of it is left: say so rather than build it again over lost data.
            _fail(server, {"message": "The server disappeared from its host.", "details": seen["detail"]})
        case "error":
            return _not_built(session, server, seen, max_attempts)
        case "building" if server.launched_at is not None:
            pass  # built anew: what it was, it is until it is there
        case state:
            _be(session, server, state, seen["host"])
            _be_reached(server, seen.get("interface"))
    return None


def _left(session: Session, server: Server) -> Literal["gone"] | Moved:
    """Take over that nothing is left of a server on a host that it was to leave."""
    programming.abandon(session, server)
    if server.desired == "shelved":
        shelving.off_host(session, server)
        return "gone"
    elsewhere = moving.left(session, server)
    if elsewhere is not None:
        return Moved([elsewhere])
    claims.release(session, [server.uuid])
    accelerators.gone(session, server)
    orders.forget_password(server)
    server.deleted_at = utcnow()
    server.detail = ""
    instance_actions.finish(session, [server.id], host=server.host)
    return "gone"


def _fail(server: Server, fault: wire.Fault) -> None:
    server.state = "error"
    server.fault = {"code": 500, **fault, "created": as_iso(utcnow())}


def _not_built(
    session: Session, server: Server, seen: wire.Observation, max_attempts: int
) -> Literal["unplaced"] | None:
    """Take over that a build failed: blame the host, and try another one if it was the server's first build."""
    fault: wire.Fault = seen["fault"] or {"message": "The build failed.", "details": ""}
    if server.state == states.SHELVED:
        shelving.not_built(session, server)
        return None
    first = server.state == "building"
    if first:
        hosts.note_build(session, seen["host"], failed=True)
    _fail(server, fault)
    if first and server.launched_at is None:
        if rebuilding.retry_build(session, server, max_attempts):
            return "unplaced"
        instance_actions.finish(session, [server.id], action="create", host=seen["host"], fault=fault)
    return None


def _be(session: Session, server: Server, state: str, host: str) -> None:
    """Take over what a server that is there does."""
    if server.state == states.SHELVED:
        shelving.built(session, server)
    if state != "building" and server.task != rebuilding.TASK:
        server.admin_pass = None  # it is on the config drive, or nobody asks for it
    if not server.held_in_error:
        server.state = moving.seen_as(moving.of(session, server), state)
        server.fault = None
    if state == "active" and server.launched_at is None:
        server.launched_at = utcnow()
        hosts.note_build(session, host, failed=False)
        instance_actions.finish(session, [server.id], action="create", host=host)


def _be_reached(server: Server, interface: wire.Interface | None) -> None:
    """Take over which network a server is on, and under which addresses."""
    told = [] if interface is None else [ipaddress.ip_address(text) for text in interface["addresses"]]
    by_version = {address.version: str(address) for address in reversed(told)}
    server.network = None if interface is None else interface["network"]
    server.ip_v4, server.ip_v6 = by_version.get(4), by_version.get(6)
