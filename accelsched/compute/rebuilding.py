# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Building servers anew: in their place from an image, or on another host because theirs is lost.

Each time a server is to be built anew its *incarnation* grows. An agent removes an older incarnation and builds the one
that is wanted; whatever is reported of an older one, or by a host that the server has left, counts no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.compute import accelerators, hosts, moving, servers, shelving, snapshots, states
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Request, Server
from accelsched.placement import claims

TASK = "rebuilding"
_VM_STATES = frozenset({"active", "stopped", "error"})


@dataclass(frozen=True)
class Rebuild:
    """What a server is to be built anew from, and what else about it changes then."""

    image: Mapping[str, Any]  # wire.ImageSpec
    changes: Mapping[str, Any] = field(default_factory=dict)  # new values by column
    admin_pass: str | None = None


def rebuild(
    session: Session,
    uuid: str,
    wanted: Rebuild,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
) -> tuple[str, str] | None:
    """Build a server anew on its host, with its devices made anew; what was on its disk is lost.

    :returns: (agent, host) to tell, None when nobody is there to be told
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is locked or busy, or was never on a host
    """
    server = _check(session, uuid, "rebuild", project_id=project_id, admin=admin)
    server.image = dict(wanted.image)
    for column, value in wanted.changes.items():
        setattr(server, column, value)
    server.admin_pass = wanted.admin_pass
    _stay_down(server)
    server.incarnation += 1
    _begin(session, server, "rebuild", "compute_rebuild_instance", origin)
    return servers.agent_of(session, server)


def evacuate(
    session: Session,
    uuid: str,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
    target: str | None,
    stopped: bool,
    admin_pass: str | None = None,
    service_down_time_s: int,
) -> None:
    """Have a server built anew on another host, because its own is lost. Its disk is made from its image again.

    :param target: the host that it shall go to; None for any that fits
    :param stopped: it is not to run there (2.95)
    :param admin_pass: for its guest's administrator
    :raises accelsched.errors.NotFoundError: when there is no such server, or no such target
    :raises accelsched.errors.InvalidError: when its host is not down, or is the target
    :raises accelsched.errors.ConflictError: when it is locked or busy, or was never on a host
    """
    server = _check(session, uuid, "evacuate", project_id=project_id, admin=admin)
    host = session.scalars(select(Host).where(Host.name == server.host)).one_or_none()
    if host is not None and hosts.is_up(host, service_down_time_s):
        raise errors.InvalidError(
            f"Compute service of {server.host} is still in use. Make sure that the host is off, then force it down: "
            "openstack compute service set --down"
        )
    if target == server.host:
        raise errors.InvalidError("The target host can't be the same one.")
    if target is not None and session.scalar(select(Host.id).where(Host.name == target)) is None:
        raise errors.NotFoundError(f"Compute host {target} not found.")
    if stopped:
        moves.wish(server, "stopped")
    server.admin_pass = admin_pass
    _move(session, server, target, origin)


def evacuate_host(session: Session, name: str, origin: instance_actions.Origin) -> int:
    """Evacuate every server of a host that was forced down, as far as it is in a state to be.

    :returns: how many are on their way
    """
    rows = session.scalars(
        select(Server)
        .where(
            Server.host == name,
            Server.deleted_at.is_(None),
            Server.desired == "active",
            Server.task.is_(None) | (Server.task != TASK),
            Server.migration_id.is_(None),
            Server.launched_at.is_not(None),
        )
        .order_by(Server.id)
        .with_for_update()
    ).all()
    for server in rows:
        _move(session, server, None, origin)
    leaving = select(Server).where(Server.host == name, Server.deleted_at.is_(None), Server.desired == "shelved")
    for server in session.scalars(leaving.with_for_update()):
        shelving.off_host(session, server)
    return len(rows)


def evacuate_stranded(session: Session, server: Server, origin: instance_actions.Origin) -> None:
    """Evacuate a server whose move ended just now where it came from, a host that was forced down meanwhile.

    It was on its way when the others were evacuated from there.
    """
    _move(session, server, None, origin)


def retry_build(session: Session, server: Server, max_attempts: int) -> bool:
    """Send a server whose first build failed to another host.

    :param max_attempts: hosts that are tried in all
    :returns: whether it goes there; not when it has no choice of hosts, or has tried enough of them
    """
    request = session.get_one(Request, server.request_id)
    tried = [*server.failed_hosts, str(server.host)]
    server.failed_hosts = tried
    if len(tried) >= max_attempts or request.spec.get("host") or request.spec.get("hypervisor_hostname"):
        return False
    claims.release(session, [server.uuid])
    server.host = server.node_uuid = None
    server.devices, server.numa = [], None
    server.state, server.detail = states.SCHEDULING, ""
    request.state, request.worker, request.lease_until = "pending", None, None
    return True


def observed(session: Session, server: Server, seen: wire.Observation) -> bool:
    """Take over what was seen of a server's newest incarnation.

    :returns: whether what was seen is of that incarnation, and counts
    """
    incarnation = seen.get("incarnation", 1)
    if incarnation < server.incarnation:
        return False
    if incarnation > server.built and seen["state"] != "building":
        server.built = incarnation
        if server.task in (TASK, shelving.UNSHELVING):
            server.task = None
            for action in ("rebuild", "evacuate", "unshelve"):
                instance_actions.finish(session, [server.id], action=action, host=seen["host"], fault=seen["fault"])
    return True


def _check(session: Session, uuid: str, action: str, *, project_id: str | None, admin: bool) -> Server:
    server = servers.alive(session, uuid, project_id)
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, action, _VM_STATES)
    if server.host is None:
        raise errors.ConflictError(f"Cannot '{action}' instance {uuid}: it is on no host")
    if server.migration_id is not None:
        raise errors.ConflictError(f"Cannot '{action}' instance {uuid}: its resize or migration is not over")
    return server


def _begin(session: Session, server: Server, action: str, event: str, origin: instance_actions.Origin) -> None:
    server.task = TASK
    server.held_in_error = False
    server.updated_at = utcnow()
    instance_actions.begin(session, [server.id], action, origin, event=event, host=server.host)


def _move(session: Session, server: Server, target: str | None, origin: instance_actions.Origin) -> None:
    """Ask the schedulers for another host. The server stays where it is until one of them has claimed it."""
    before = moving.request_of(session, server)
    snapshots.abandon(session, server, "The server's host was lost meanwhile.")
    accelerators.abandon(session, server)
    _stay_down(server)
    if server.state == states.RESCUED:
        moves.wish(server, "running")  # from its new disk
    ignored = [*before.spec.get("ignore_hosts", ()), server.host]
    moving.ask_for_host(session, server, before, {**before.spec, "host": target, "ignore_hosts": ignored})
    _begin(session, server, "evacuate", "compute_rebuild_instance", origin)


def _stay_down(server: Server) -> None:
    """Have a server that is stopped be so after it was built."""
    if server.state == states.STOPPED:
        moves.wish(server, "stopped")
