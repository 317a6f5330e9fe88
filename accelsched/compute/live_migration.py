# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that go to another host while they run: Nova's live migration.

The server's row stays on its source until it has gone; its task is ``migrating``. The steps, by the migration's status:

==========  =============================================================  ===============================
status      what is waited for                                             then
==========  =============================================================  ===============================
queued      a scheduler claims a place                                     preparing; error, cancelled
preparing   the destination's agent has made ready: devices, disk, files   running; error, cancelled
running     the source's agent has had libvirt move it                     completed; error, cancelled
==========  =============================================================  ===============================

From the claim on the migration, as a consumer, holds what the server has where it runs, and the server what it is to
have. Whatever fails, the server stays as it is on its source; its destination's agent finds that nobody wants there
what it made, and removes it. What stands against a migration is said before anything happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import os_traits
from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from accelsched import errors, names, wire
from accelsched.compute import accelerators, hosts, live_devices, moving, servers
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Migration, Request, Server
from accelsched.placement import claims
from accelsched.scheduler.request import RequestSpec

ACTION = "live-migration"
_VM_STATES = frozenset({"active", "paused"})
UNDER_WAY = ("queued", "preparing", "running")
_COMING = ("preparing", "running")
_SINCE = "1.2"  # version of accelsched.wire from which on agents understand it
_REASONS_TOLD = 3


@dataclass(frozen=True)
class Wanted:
    """How a server shall go."""

    target: str | None  # a host; None for any that fits
    forced: bool = False  # filters are not asked
    copies_disk: bool = True  # False: only where the disk is on storage that both hosts share


def migrate(
    session: Session,
    uuid: str,
    wanted: Wanted,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
    service_down_time_s: int,
) -> None:
    """Ask the schedulers for another host for a server that runs.

    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is locked, busy, moves already, or in a state in which nobody could
        move it
    :raises accelsched.errors.InvalidError: when there is no such target, or saying what stands against it
    """
    server = servers.alive(session, uuid, project_id)
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, "os-migrateLive", _VM_STATES)
    if server.migration_id is not None:
        raise errors.ConflictError(f"Cannot 'os-migrateLive' instance {uuid}: an earlier move of it is not over")
    accelerators.check_none(server, "os-migrateLive")
    source = session.scalars(select(Host).where(Host.name == server.host)).one()
    if wanted.target is not None:
        if wanted.target == server.host:
            raise errors.InvalidError(f"Unable to migrate instance ({uuid}) to current host ({wanted.target}).")
        if session.scalar(select(Host.id).where(Host.name == wanted.target)) is None:
            raise errors.InvalidError(f"Compute host {wanted.target} could not be found.")
    if not hosts.is_up(source, service_down_time_s):
        raise errors.InvalidError(
            f"Compute service of {source.name} is unavailable at this time. Bring it up, or evacuate the server."
        )
    before = moving.request_of(session, server)
    unfit = _check(session, server, source, before, wanted)
    spec = {
        **before.spec,
        "host": wanted.target,
        "ignore_hosts": [source.name, *unfit],
        "host_traits": [names.MOVES_LIVE],
    }
    request = moving.ask_for_host(session, server, before, spec)
    request.spec = {**request.spec, "forced": wanted.forced}
    moving.begin(session, server, source, request, origin, type_=moves.LIVE, status="queued", flavor=server.flavor)
    server.task = moves.LIVE_TASK
    instance_actions.begin(session, [server.id], ACTION, origin, event="compute_live_migration", host=server.host)


def _check(session: Session, server: Server, source: Host, before: Request, wanted: Wanted) -> list[str]:
    """Refuse what cannot work.

    :returns: names of the hosts that the server cannot go to, for what they are
    :raises accelsched.errors.InvalidError: saying what stands against it
    """
    groups = RequestSpec.from_dict(before.spec).query().groups
    live_migratable = frozenset({os_traits.HW_PCI_LIVE_MIGRATABLE})
    asked = {group.suffix for group in groups if live_migratable in group.required}
    ways = live_devices.ways(server, source)
    has_disk = server.image is not None or server.flavor["disk_gb"] > 0
    reason = _cannot(source, ways) or live_devices.refusal(server, source, asked)
    if reason is None and has_disk and not wanted.copies_disk:
        reason = (
            f"{source.name} is not on shared storage: the server's disk is on its host alone. Have it copied: "
            "block_migration true, or auto from 2.25 on"
        )
    if reason is not None:
        raise _refused(reason)
    others = session.scalars(select(Host).where(Host.name != source.name).order_by(Host.id)).all()
    unfit = {host.name: why for host in others if (why := _unlike(host, source) or _cannot(host, ways)) is not None}
    if wanted.target in unfit:
        raise _refused(unfit[wanted.target])
    if len(unfit) == len(others):
        told = "; ".join(list(unfit.values())[:_REASONS_TOLD])
        raise _refused(f"there is no host that the server could go to{': ' if told else ''}{told}")
    return list(unfit)


def _refused(reason: str) -> errors.InvalidError:
    return errors.InvalidError(f"Migration pre-check error: {reason}.")


def _cannot(host: Host, ways: frozenset[str]) -> str | None:
    """Return why a host can neither give a server away while it runs nor take it; None when it can."""
    traits = host.reported.get(host.node_uuid, {}).get("traits", ())
    if names.MOVES_LIVE not in traits or not hosts.understands(host.rpc_version, _SINCE):
        return (
            f"the agent of host {host.name} cannot hand servers over while they run. Its driver or its release does not"
        )
    return live_devices.too_old(host, ways)


def _unlike(host: Host, source: Host) -> str | None:
    kinds = [f"{one.hypervisor['type']} on {one.hypervisor['cpu_arch']}" for one in (host, source)]
    return None if kinds[0] == kinds[1] else f"host {host.name} has {kinds[0]}, not {kinds[1]}"


def coming(host_names: Sequence[str]) -> Select[int]:
    """Return the query for the ids of servers that are to come to some hosts while they run."""
    return select(Migration.server_id).where(Migration.dest_host.in_(host_names), Migration.status.in_(_COMING))


def comes(migration: Migration) -> bool:
    """Tell whether a server is to come to the migration's destination while it runs."""
    return moves.is_live(migration) and migration.status in _COMING


def observed(session: Session, server: Server, migration: Migration, seen: wire.Observation) -> Sequence[str] | None:
    """Take over what the source's agent saw of a server that goes while it runs.

    :returns: hosts whose agents are to be told; None when what was seen says how the server is, as ever
    """
    if "migration" in seen:
        migration.target = {**migration.target, "progress": dict(seen["migration"])}
        migration.updated_at = utcnow()
        return ()
    if seen["state"] in ("gone", "error"):
        _stay(session, server, migration, seen["fault"] or {"message": "The server was lost meanwhile.", "details": ""})
        return None
    order = server.power_order
    if migration.status != "running" or order is None or seen.get("order", 0) < order["number"]:
        return None
    fault = seen.get("order_fault")
    told = [name for name in (migration.source_host, migration.dest_host) if name is not None]
    if fault is not None:
        server.state = seen["state"]
        _stay(session, server, migration, fault)
    else:
        claims.release(session, [migration.uuid])
        moves.land(migration, server)
        instance_actions.finish(session, [server.id], action=ACTION, host=migration.dest_host)
    return told


def awaited(session: Session, server: Server | None, seen: wire.Observation) -> str | None:
    """Take over what the destination's agent saw of a server that it is to make ready for.

    :returns: the host whose agent is to be told, None for nobody
    """
    migration = None if server is None else moving.of(session, server)
    if server is None or migration is None or migration.status != "preparing" or migration.dest_host != seen["host"]:
        return None
    if server.desired != "active" or seen.get("incarnation", 1) != migration.target["incarnation"]:
        return None
    if seen["state"] == "error":
        _stay(session, server, migration, seen["fault"] or {"message": "Its destination failed.", "details": ""})
    elif seen["state"] == "awaited":
        agent = hosts.agent_of(session, migration.dest_host) or ""
        moves.leave(migration, server, {"host": migration.dest_host, "agent": agent})
        return server.host
    return None


def _stay(session: Session, server: Server, migration: Migration, fault: wire.Fault) -> None:
    """Have a server go on where it is, and hold what it has there and nothing else."""
    if migration.status != "queued":
        claims.release(session, [server.uuid])
        claims.hand_over(session, migration.uuid, server.uuid, "INSTANCE")
    status = "cancelled" if migration.target.get("aborted") else "error"
    moves.stay(migration, server, fault, status)
    instance_actions.finish(session, [server.id], action=ACTION, host=migration.source_host, fault=fault)


def host_lost(session: Session, name: str) -> set[str]:
    """Have servers not go on to, nor wait to leave, a host that was forced down: it is off, or cut off.

    :returns: hosts whose agents are to be told
    """
    rows = session.execute(
        select(Server, Migration)
        .join(Migration, Migration.id == Server.migration_id)
        .where(
            or_(Migration.source_host == name, Migration.dest_host == name),
            Migration.status.in_(UNDER_WAY),
            *(Server.deleted_at.is_(None), Server.desired == "active"),
        )
        .order_by(Server.id)
        .with_for_update()
    )
    told: set[str] = set()
    for server, migration in rows:
        what = "that the server was on" if migration.source_host == name else "where the server was to go"
        told |= {side for side in (migration.source_host, migration.dest_host) if side is not None}
        _stay(session, server, migration, {"message": f"Host {name} was lost, {what}.", "details": ""})
    return told - {name}


def under_way(session: Session, uuid: str, *, project_id: str | None) -> list[Migration]:
    """Return a server's live migrations that are not over.

    :raises accelsched.errors.NotFoundError: when there is no such server
    """
    server = servers.get(session, uuid, project_id=project_id).server
    migration = moving.of(session, server)
    return [migration] if migration is not None and moves.is_live(migration) else []


def abort(
    session: Session,
    uuid: str,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    number: str,
    early: bool,
) -> Sequence[str]:
    """Have a server stay after all.

    :param number: the migration's id, as it was given
    :param early: before libvirt has begun, too (2.65)
    :returns: hosts whose agents are to be told
    :raises accelsched.errors.NotFoundError: when there is no such server, or no such migration of it
    :raises accelsched.errors.InvalidError: when the migration is in no state for that
    """
    server, migration = _find(session, uuid, number, project_id, "abort", UNDER_WAY if early else ("running",))
    instance_actions.begin(session, [server.id], "live_migration_cancel", origin)
    migration.target = {**migration.target, "aborted": True}
    if migration.status == "running":
        _say(server, migration, "abort")
        return [migration.source_host]
    _stay(session, server, migration, {"message": "The migration was aborted.", "details": ""})
    return [migration.dest_host] if migration.dest_host is not None else []


def force(
    session: Session, uuid: str, origin: instance_actions.Origin, *, project_id: str | None, number: str
) -> Sequence[str]:
    """Have a server's guest stand still until it is there.

    :param number: the migration's id, as it was given
    :returns: hosts whose agents are to be told
    :raises accelsched.errors.NotFoundError: when there is no such server, or no such migration of it
    :raises accelsched.errors.InvalidError: when the migration is in no state for that
    """
    server, migration = _find(session, uuid, number, project_id, "force complete", ("running",))
    instance_actions.begin(session, [server.id], "live_migration_force_complete", origin)
    _say(server, migration, "force")
    return [migration.source_host]


def _find(
    session: Session, uuid: str, number: str, project_id: str | None, verb: str, statuses: Sequence[str]
) -> tuple[Server, Migration]:
    server = servers.alive(session, uuid, project_id)
    migration = moving.get(session, uuid, number, project_id=project_id)
    if not moves.is_live(migration) or migration.status not in statuses:
        raise errors.InvalidError(
            f"Migration {migration.id} state of instance {uuid} is {migration.status}. Cannot {verb} while the "
            "migration is in this state."
        )
    return server, migration


def _say(server: Server, migration: Migration, what: str) -> None:
    """Add to what the order under way says. Its number stays: it is the same order, and its agent looks meanwhile."""
    order = server.power_order or {}
    server.power_order = {**order, "live": {**order.get("live", {}), what: True}}
    migration.updated_at = utcnow()
