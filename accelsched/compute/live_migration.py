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

A host that nobody named and that turns out not to fit before libvirt has begun is not the end: the migration is queued
again, for another host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import os_traits
from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from accelsched import errors, names, wire
from accelsched.compute import accelerators, hosts, live_devices, moving, servers
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, InstanceAction, Migration, Request, Server
from accelsched.placement import claims
from accelsched.scheduler.request import RequestSpec

ACTION = "live-migration"
_VM_STATES = frozenset({"active", "paused"})
UNDER_WAY = ("queued", "preparing", "running")
_COMING = ("preparing", "running")
_SINCE = "1.2"  # version of accelsched.wire from which on agents understand it
_REASONS_TOLD = 3
_RUNNING = ("active", "paused")


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
        "group_traits": {
            group: sorted(traits) for group, traits in live_devices.vgpu_types(server, source).items() if traits
        },
    }
    request = moving.ask_for_host(session, server, before, spec)
    request.spec = {**request.spec, "forced": wanted.forced}
    migration = moving.begin(
        session, server, source, request, origin, type_=moves.LIVE, status="queued", flavor=server.flavor
    )
    migration.target = {**migration.target, "request_id": origin.request_id}
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
    types = live_devices.vgpu_types(server, source)
    unfit = {
        host.name: why
        for host in others
        if (why := _unlike(host, source) or _cannot(host, ways) or live_devices.lacks(host, types)) is not None
    }
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


class Step(NamedTuple):
    """What follows for others from what an agent saw."""

    told: Sequence[str] = ()  # hosts whose agents are to be told
    unplaced: bool = False  # the server wants another host


def observed(
    session: Session, server: Server, migration: Migration, seen: wire.Observation, max_attempts: int
) -> Step | None:
    """Take over what the source's agent saw of a server that goes while it runs.

    :param max_attempts: hosts that are tried
    :returns: None when what was seen says how the server is, as ever
    """
    if "migration" in seen:
        migration.target = {**migration.target, "progress": dict(seen["migration"])}
        migration.updated_at = utcnow()
        return Step()
    if seen["state"] in ("gone", "error"):
        _stay(session, server, migration, seen["fault"] or {"message": "The server was lost meanwhile.", "details": ""})
        return None
    order = server.power_order
    if migration.status != "running" or order is None or seen.get("order", 0) < order["number"]:
        return None
    fault = seen.get("order_fault")
    told = [name for name in (migration.source_host, migration.dest_host) if name is not None]
    unplaced = False
    if fault is not None:
        server.state = seen["state"]
        unfit = fault.get("unfit_target", False) and seen["state"] in _RUNNING
        unplaced = unfit and _try_elsewhere(session, server, migration, fault, max_attempts)
        if not unplaced:
            _stay(session, server, migration, fault)
    else:
        claims.release(session, [migration.uuid])
        moves.land(migration, server)
        instance_actions.finish(session, [server.id], action=ACTION, host=migration.dest_host)
    return Step(told, unplaced)


def awaited(session: Session, server: Server | None, seen: wire.Observation, max_attempts: int) -> Step | None:
    """Take over what the destination's agent saw of a server that it is to make ready for.

    :param max_attempts: hosts that are tried
    """
    migration = None if server is None else moving.of(session, server)
    if server is None or migration is None or migration.status != "preparing" or migration.dest_host != seen["host"]:
        return None
    if server.desired != "active" or seen.get("incarnation", 1) != migration.target["incarnation"]:
        return None
    if seen["state"] == "error":
        fault = seen["fault"] or {"message": "Its destination failed.", "details": ""}
        return _unfit(session, server, migration, fault, max_attempts)
    if seen["state"] == "awaited":
        agent = hosts.agent_of(session, migration.dest_host) or ""
        moves.leave(migration, server, {"host": migration.dest_host, "agent": agent})
        return Step([migration.source_host])
    return None


def _unfit(session: Session, server: Server, migration: Migration, fault: wire.Fault, max_attempts: int) -> Step:
    """Take over that the destination cannot be made ready."""
    told = [] if migration.dest_host is None else [migration.dest_host]
    if _try_elsewhere(session, server, migration, fault, max_attempts):
        return Step(told, unplaced=True)
    _stay(session, server, migration, fault)
    return Step(told)


def _try_elsewhere(
    session: Session, server: Server, migration: Migration, fault: wire.Fault, max_attempts: int
) -> bool:
    """Ask the schedulers for another host in place of one that turned out not to fit before anything moved.

    :returns: whether that was asked; not when its host was named, when enough of them were tried, or it was given up
    """
    request = session.get_one(Request, migration.request_id)
    moves.note_tried(migration, fault)
    if migration.target.get("aborted") or request.spec.get("host") or len(moves.tried(migration)) >= max_attempts:
        return False
    ignored = [*request.spec.get("ignore_hosts", ()), migration.dest_host]
    request.spec = {**request.spec, "ignore_hosts": ignored}
    request.state, request.worker, request.lease_until = "pending", None, None
    _let_go(session, server, migration)
    moves.queue_again(migration, server)
    return True


def tried_for(session: Session, action: InstanceAction) -> list[moves.Tried]:
    """Return the hosts that turned out not to fit for what an action asked for, the first tried first."""
    if action.action != ACTION:
        return []
    query = select(Migration).where(Migration.server_id == action.server_id, Migration.type == moves.LIVE)
    found = session.scalars(query.order_by(Migration.id))
    return [
        one
        for migration in found
        if migration.target.get("request_id") == action.request_id
        for one in moves.tried(migration)
    ]


def _let_go(session: Session, server: Server, migration: Migration) -> None:
    """Have a server hold what it has where it is, and nothing else."""
    claims.release(session, [server.uuid])
    claims.hand_over(session, migration.uuid, server.uuid, "INSTANCE")


def _stay(session: Session, server: Server, migration: Migration, fault: wire.Fault) -> None:
    """Have a server go on where it is, and hold what it has there and nothing else."""
    if migration.status != "queued":
        _let_go(session, server, migration)
    told = moves.with_tried(migration, fault)
    status = "cancelled" if migration.target.get("aborted") else "error"
    moves.stay(migration, server, told, status)
    instance_actions.finish(session, [server.id], action=ACTION, host=migration.source_host, fault=told)


def host_lost(session: Session, name: str, max_attempts: int) -> set[str]:
    """Have servers not go on to, nor wait to leave, a host that was forced down: it is off, or cut off.

    :param max_attempts: hosts that are tried
    :returns: hosts whose agents are to be told
    """
    rows = _locked(session, UNDER_WAY, or_(Migration.source_host == name, Migration.dest_host == name))
    told: set[str] = set()
    for server, migration in rows:
        comes_ = migration.source_host != name
        what = "where the server was to go" if comes_ else "that the server was on"
        fault: wire.Fault = {"message": f"Host {name} was lost, {what}.", "details": ""}
        if comes_ and migration.status == "preparing":
            told.add(migration.source_host)
            _unfit(session, server, migration, fault, max_attempts)
            continue
        told |= {side for side in (migration.source_host, migration.dest_host) if side is not None}
        _stay(session, server, migration, fault)
    return told - {name}


def silent_targets(session: Session, service_down_time_s: int) -> list[str]:
    """Return the hosts that are to make ready for servers and of which nothing is heard any more."""
    waited_for = select(Migration.dest_host).where(Migration.type == moves.LIVE, Migration.status == "preparing")
    found = session.scalars(select(Host).where(Host.name.in_(waited_for))).all()
    return [host.name for host in found if not hosts.is_up(host, service_down_time_s)]


def leave_silent(session: Session, service_down_time_s: int, max_attempts: int) -> list[str]:
    """Have servers not wait for hosts that were to make ready for them and of which nothing is heard any more.

    :param max_attempts: hosts that are tried
    :returns: these hosts
    """
    silent = silent_targets(session, service_down_time_s)
    left: set[str] = set()
    for server, migration in _locked(session, ("preparing",), Migration.dest_host.in_(silent)):
        left.add(migration.dest_host or "")
        message = f"The agent of host {migration.dest_host}, where the server was to go, does not answer."
        _unfit(session, server, migration, {"message": message, "details": ""}, max_attempts)
    return sorted(left)


def _locked(session: Session, statuses: Sequence[str], which: ColumnElement[bool]) -> list[tuple[Server, Migration]]:
    """Return servers that go while they run, and their migrations."""
    rows = session.execute(
        select(Server, Migration)
        .join(Migration, Migration.id == Server.migration_id)
        .where(
            Migration.type == moves.LIVE,
            Migration.status.in_(statuses),
            which,
            *(Server.deleted_at.is_(None), Server.desired == "active"),
        )
        .order_by(Server.id)
        .with_for_update()
    )
    return [(server, migration) for server, migration in rows]


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
