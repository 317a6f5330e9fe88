# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that change their size or host, until that is confirmed or taken back: Nova's resize and cold migration.

The steps, by the migration's status; each is taken when an agent says that the one before it was carried out:

==============  ================================================================  ======================
status          what is waited for                                                then
==============  ================================================================  ======================
pre-migrating   a scheduler claims a place; the server is what it was              migrating; error
migrating       the source's agent has stopped it and set it aside                 post-migrating
post-migrating  the destination's agent has it                                     finished
finished        its owner: VERIFY_RESIZE                                           confirming, reverting
confirming      the source's agent has removed it                                  confirmed
reverting       the destination's agent has removed it, then the source's has it   reverted; error
==============  ================================================================  ======================

What fails while it migrates has it go back, *reverting* with the fault. The migration, as a consumer, holds what the
server had where it comes from until it is confirmed; on the same host too.
"""

from __future__ import annotations

import datetime
import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Select, and_, not_, or_, select
from sqlalchemy.orm import Session

from accelsched import errors, names, wire
from accelsched.compute import accelerators, hosts, paging, quotas, servers, states
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Flavor, Host, Migration, Request, Server, as_iso
from accelsched.placement import claims

_MOVABLE = frozenset({"active", "stopped"})
_RESIZED = frozenset({"resized"})
# In which the source holds the server, set aside.
_ASIDE = ("post-migrating", "finished", "confirming", "reverting")
# In which what is seen of the server says how far its move is.
_UNDER_WAY = frozenset({"migrating", "post-migrating", "reverting"})
_ACTIONS = {"resize": "resize", "migration": "migrate"}


@dataclass(frozen=True)
class Move:
    """Where a server shall go, and as what."""

    flavor: Mapping[str, Any] | None = None  # wire.FlavorSpec and id, ephemeral_gb, swap_mb; None: as it is
    spec: Mapping[str, Any] | None = None  # scheduler.request.RequestSpec for that flavor
    target: str | None = None  # a host; None for any that fits
    same_host: bool = False  # it may stay on its own

    @property
    def type(self) -> str:
        return "migration" if self.flavor is None else "resize"


def request_of(session: Session, server: Server) -> Request:
    """Return the request for what the server is now: the one that made it, or that of its last change of size."""
    last = session.scalar(
        select(Migration.request_id)
        .where(Migration.server_id == server.id, Migration.status == "confirmed")
        .order_by(Migration.id.desc())
        .limit(1)
    )
    return session.get_one(Request, server.request_id if last is None else last)


def ask_for_host(session: Session, server: Server, before: Request, spec: Mapping[str, Any]) -> Request:
    """Ask the schedulers for another host for a server, and return the request.

    :param before: what :func:`request_of` says
    :param spec: scheduler.request.RequestSpec, as a dictionary; its image is the server's, its host no forced one
    """
    request = Request(
        uuid=servers.reservation_id(),
        project_id=server.project_id,
        user_id=server.user_id,
        spec={**spec, "image": server.image, "hypervisor_hostname": None, "forced": False, "server": server.uuid},
        group_uuid=before.group_uuid,
        server_id=server.id,
        count=1,
        min_count=1,
    )
    session.add(request)
    session.flush()
    return request


def begin(
    session: Session,
    server: Server,
    source: Host,
    request: Request,
    origin: instance_actions.Origin,
    *,
    type_: str,
    status: str,
    flavor: Mapping[str, Any],
) -> Migration:
    """Write down that a server is to go somewhere, and return that; its task is the caller's to say.

    :param source: the host that it is on
    :param request: what :func:`ask_for_host` returned
    :param type_: Migration.type
    :param status: Migration.status
    :param flavor: that it is to have there
    """
    migration = Migration(
        uuid=str(uuids.uuid4()),
        server_id=server.id,
        request_id=request.id,
        type=type_,
        status=status,
        source_host=source.name,
        source_node=source.node_uuid,
        source={"flavor": server.flavor},
        target={"flavor": flavor},
        power="running",
        old_flavor_id=flavor_id(session, server.flavor),
        new_flavor_id=flavor_id(session, flavor),
        project_id=origin.project_id,
        user_id=origin.user_id,
    )
    session.add(migration)
    session.flush()
    server.migration_id = migration.id
    server.updated_at = utcnow()
    return migration


def move(
    session: Session,
    uuid: str,
    wanted: Move,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
    service_down_time_s: int,
    limits: Mapping[str, int],
) -> None:
    """Ask the schedulers for another place. The server goes on as it is until one of them has claimed it.

    :param limits: of projects without limits of their own
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.QuotaExceededError: when its project may not have a server of that size
    :raises accelsched.errors.InvalidError: when there is no such target, or the server is there
    :raises accelsched.errors.ConflictError: when it is locked, busy, moves already, or its host cannot let it go
    """
    server = servers.alive(session, uuid, project_id)
    action = _ACTIONS[wanted.type]
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, action, _MOVABLE)
    if server.migration_id is not None:
        raise errors.ConflictError(f"Cannot '{action}' instance {uuid}: an earlier move of it is not over")
    accelerators.check_none(server, action)
    source = session.scalars(select(Host).where(Host.name == server.host)).one()
    _check_source(source, action, uuid, service_down_time_s)
    if wanted.target is not None:
        if wanted.target == server.host:
            raise errors.InvalidError("The target host can't be the same one.")
        if session.scalar(select(Host.id).where(Host.name == wanted.target)) is None:
            raise errors.InvalidError(f"Compute host {wanted.target} could not be found.")
    if wanted.flavor is not None:
        quotas.admit_growth(session, server.project_id, server.flavor, wanted.flavor, limits)
    before = request_of(session, server)
    spec = {
        **(before.spec if wanted.spec is None else wanted.spec),
        "host": wanted.target,
        "ignore_hosts": [] if wanted.same_host else [server.host],
        "host_traits": [names.MOVES],
    }
    request = ask_for_host(session, server, before, spec)
    flavor = server.flavor if wanted.flavor is None else dict(wanted.flavor)
    begin(session, server, source, request, origin, type_=wanted.type, status="pre-migrating", flavor=flavor)
    server.task = "resize_prep"
    instance_actions.begin(session, [server.id], action, origin, event="compute_prep_resize", host=server.host)


def _check_source(host: Host, action: str, uuid: str, service_down_time_s: int) -> None:
    if not hosts.is_up(host, service_down_time_s):
        raise errors.ConflictError(
            f"Cannot '{action}' instance {uuid}: host {host.name} is down. Bring it up, or evacuate the server."
        )
    if names.MOVES not in host.reported.get(host.node_uuid, {}).get("traits", ()):
        raise errors.ConflictError(
            f"Cannot '{action}' instance {uuid}: the agent of host {host.name} cannot hand servers over. Its driver or "
            "its release does not; see the reference of server states."
        )


def flavor_id(session: Session, flavor: Mapping[str, Any]) -> int | None:
    """Return the id of the flavor that a server was made of; None when it is gone."""
    return session.scalar(select(Flavor.id).where(Flavor.flavorid == flavor["id"])) if "id" in flavor else None


def confirm(
    session: Session, uuid: str, origin: instance_actions.Origin, *, project_id: str | None, admin: bool
) -> str | None:
    """Have a server be what it is, and what it was before removed.

    :returns: the host whose agent is to be told; None when nothing is left to do
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it waits for no such word, or is locked
    :raises accelsched.errors.InvalidError: when that was said already
    """
    server, migration = _finished(session, uuid, "confirmResize", project_id=project_id, admin=admin)
    instance_actions.begin(
        *(session, [server.id], "confirmResize", origin), event="compute_confirm_resize", host=migration.source_host
    )
    migration.status, migration.updated_at = "confirming", utcnow()
    if moves.on_same_host(migration) or hosts.is_forced_down(session, migration.source_host):
        _source_gone(session, server, migration)
        return None
    return migration.source_host


def revert(
    session: Session, uuid: str, origin: instance_actions.Origin, *, project_id: str | None, admin: bool
) -> str | None:
    """Have a server be again what it was before.

    :returns: the host whose agent is to be told
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it waits for no such word, or is locked
    :raises accelsched.errors.InvalidError: when that was said already
    """
    server, migration = _finished(session, uuid, "revertResize", project_id=project_id, admin=admin)
    if hosts.is_forced_down(session, migration.source_host) and not moves.on_same_host(migration):
        raise errors.ConflictError(
            f"Cannot 'revertResize' instance {uuid}: host {migration.source_host}, from where it came, is lost"
        )
    instance_actions.begin(
        *(session, [server.id], "revertResize", origin), event="compute_revert_resize", host=migration.dest_host
    )
    migration.status, server.task = "reverting", "resize_reverting"
    migration.updated_at = server.updated_at = utcnow()
    if moves.on_same_host(migration) or hosts.is_forced_down(session, server.host):
        _go_back(session, server, migration, None)
    return server.host


def _finished(
    session: Session, uuid: str, action: str, *, project_id: str | None, admin: bool
) -> tuple[Server, Migration]:
    server = servers.alive(session, uuid, project_id)
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, action, _RESIZED)
    migration = of(session, server)
    if migration is None or migration.status != "finished":
        raise errors.InvalidError("Instance has not been resized.")
    return server, migration


def host_lost(session: Session, name: str, *, evacuated: bool) -> set[str]:
    """Have moves not wait for a host that was forced down, which is to say that it is off or cut off.

    What such a host goes on to hold, its agent removes when it is back. Servers that have not left it stay with it, to
    be evacuated. One whose files another host is to fetch from it is left to the agent there: it alone knows whether it
    has them.

    :param evacuated: servers leave it, those too that wait there for their owner's word: they go back where they came
        from
    :returns: hosts whose agents are to be told
    """
    to_it = ["post-migrating", "reverting", *(["finished"] if evacuated else [])]
    from_it = ["confirming", "migrating", "reverting"]
    is_source, is_there = Migration.source_host == name, Server.host == name
    rows = session.execute(
        select(Server, Migration)
        .join(Migration, Migration.id == Server.migration_id)
        .where(
            or_(
                and_(is_source, Migration.status.in_(("pre-migrating", "confirming"))),
                and_(is_source, is_there, Migration.dest_host != name, Migration.status.in_(from_it)),
                and_(is_source, not_(is_there), Migration.status == "post-migrating"),
                and_(not_(is_source), is_there, Migration.status.in_(to_it)),
            ),
            *(Server.deleted_at.is_(None), Server.desired == "active"),
        )
        .order_by(Server.id)
        .with_for_update()
    )
    told = set()
    for server, migration in rows:
        if migration.status == "confirming":
            _source_gone(session, server, migration)
        elif migration.source_host == name and server.host == name:
            _give_up(session, server, migration, _lost(name, "which the server had not left"))
        elif migration.source_host == name:
            told.add(str(server.host))
        else:
            lost = None if migration.status == "reverting" else _lost(name, "where the server was to go")
            _go_back(session, server, migration, lost)
            told.add(migration.source_host)
    return told


def _lost(name: str, what: str) -> wire.Fault:
    return {"message": f"Host {name} was lost, {what}.", "details": ""}


def _give_up(session: Session, server: Server, migration: Migration, fault: wire.Fault) -> None:
    if migration.status == "migrating":
        _take_back(session, server, migration)
    if migration.status == "pre-migrating":  # nothing was ordered, and no scheduler is to take it up any more
        session.get_one(Request, migration.request_id).state = "done"
        migration.fault = dict(fault)
        moves.close(migration, server, "error")
    else:
        moves.give_up(migration, server, fault)
    for action in (_ACTIONS[migration.type], "revertResize"):
        instance_actions.finish(session, [server.id], action=action, host=migration.source_host, fault=fault)


def of(session: Session, server: Server) -> Migration | None:
    """Return a server's move that is not over."""
    return None if server.migration_id is None else session.get_one(Migration, server.migration_id)


def of_each(session: Session, servers: Sequence[Server]) -> dict[int, Migration]:
    """Return the moves of servers that are not over, by the server's id."""
    ids = [server.migration_id for server in servers if server.migration_id is not None]
    if not ids:
        return {}
    return {move.server_id: move for move in session.scalars(select(Migration).where(Migration.id.in_(ids)))}


def set_aside(host_names: Sequence[str]) -> Select[int]:
    """Return the query for the ids of servers that some hosts may hold for others, see :func:`is_set_aside`."""
    return select(Migration.server_id).where(Migration.source_host.in_(host_names), Migration.status.in_(_ASIDE))


def is_set_aside(server: Server, migration: Migration) -> bool:
    """Tell whether the host that a server comes from holds it for the one that it went to."""
    return server.deleted_at is None and migration.status in _ASIDE and server.host not in (None, migration.source_host)


def leaves_source(server: Server, migration: Migration) -> bool:
    """Tell whether a server that is set aside is of no use any more."""
    return server.desired != "active" or migration.status == "confirming"


def leaves_destination(server: Server, migration: Migration | None) -> bool:
    """Tell whether a server is to be removed from where it went, to go on where it came from."""
    return migration is not None and migration.status == "reverting" and server.host != migration.source_host


def origin(server: Server, migration: Migration | None) -> str | None:
    """Return the host that holds a server's files, until it was built where it goes."""
    if migration is None or migration.status != "post-migrating" or moves.on_same_host(migration):
        return None
    return migration.source_host if server.incarnation > server.built else None


def kept_disk(migration: Migration | None) -> wire.KeptDisk | None:
    """Return which copy of its disk a server may want again, or wants again, on the host where it got another size."""
    if migration is None or not moves.on_same_host(migration):
        return None
    return {"id": migration.uuid, "restore": migration.status == "reverting"}


def seen_as(migration: Migration | None, state: str) -> str:
    """Return the state of a server that an agent saw in ``state``."""
    if migration is None or migration.status not in ("finished", "confirming"):
        return state
    return states.RESIZED if state == states.ACTIVE else states.RESIZED_STOPPED


def under_way(migration: Migration | None) -> bool:
    """Tell whether what is seen of a server is for :func:`observed`."""
    return migration is not None and migration.status in _UNDER_WAY


def observed(session: Session, server: Server, migration: Migration, seen: wire.Observation) -> str | None:
    """Take over what the agent of a server's host saw of it while it is under way.

    :returns: the host whose agent is to be told, None for nobody
    """
    if leaves_destination(server, migration):
        return _go_back(session, server, migration, None) if seen["state"] == "gone" else None
    if seen["state"] == "error" and migration.status == "post-migrating":
        fault = seen["fault"] or {"message": "The server could not be built where it goes.", "details": ""}
        return _go_back(session, server, migration, fault)
    if server.power_order is None or seen.get("order", 0) < server.power_order["number"]:
        return None
    return _obeyed(session, server, migration, seen)


def _obeyed(session: Session, server: Server, migration: Migration, seen: wire.Observation) -> str | None:
    """Take the step after the one that an agent has carried out, or could not."""
    fault = seen.get("order_fault")
    if migration.status == "reverting":
        _is_back(session, server, migration, seen, fault)
        return None
    if fault is not None:
        return _go_back(session, server, migration, fault)
    if migration.status == "migrating":
        moves.arrive(migration, server)
        return server.host
    migration.status, migration.updated_at = "finished", utcnow()
    server.task, server.held_in_error = None, False
    server.state = seen_as(migration, seen["state"])
    instance_actions.finish(session, [server.id], action=_ACTIONS[migration.type], host=seen["host"])
    return None


def source_seen(session: Session, seen: wire.Observation, server: Server | None) -> None:
    """Take over what an agent saw of a server that is not on its host, if it holds it for another one."""
    migration = None if server is None else of(session, server)
    if server is None or migration is None or migration.source_host != seen["host"] or seen["state"] != "gone":
        return
    if leaves_source(server, migration):
        _source_gone(session, server, migration)


def left(session: Session, server: Server) -> str | None:
    """Note that nothing is left of a server that is to be deleted where it is.

    :returns: the host where it was set aside and is still, from where it is to be removed too
    """
    migration = of(session, server)
    if migration is None:
        return None
    elsewhere = server.host != migration.source_host
    if elsewhere:
        _take_back(session, server, migration)
        moves.go_back(migration, server, None)
    else:
        claims.release(session, [migration.uuid])
    moves.close(migration, server, _given_up(migration))
    return server.host if elsewhere else None


def _given_up(migration: Migration) -> str:
    if moves.is_live(migration):
        return "cancelled"
    return "error" if migration.status == "pre-migrating" else "reverted"


def _source_gone(session: Session, server: Server, migration: Migration) -> None:
    claims.release(session, [migration.uuid])
    moves.close(migration, server, "confirmed")
    if server.desired == "active":
        server.state = {states.RESIZED: states.ACTIVE, states.RESIZED_STOPPED: states.STOPPED}.get(
            server.state, server.state
        )
        server.updated_at = utcnow()
        instance_actions.finish(session, [server.id], action="confirmResize", host=migration.source_host)


def _go_back(session: Session, server: Server, migration: Migration, fault: wire.Fault | None) -> str | None:
    if not moves.on_same_host(migration):  # there it is on what it is to leave until it is back
        _take_back(session, server, migration)
    moves.go_back(migration, server, fault)
    if hosts.is_forced_down(session, migration.source_host) and not moves.on_same_host(migration):
        lost = _lost(migration.source_host, "where the server was to go back")
        _give_up(session, server, migration, fault or lost)
    return server.host


def _take_back(session: Session, server: Server, migration: Migration) -> None:
    """Have a server hold what the migration held for it, and nothing else."""
    claims.release(session, [server.uuid])
    claims.hand_over(session, migration.uuid, server.uuid, "INSTANCE")


def _is_back(
    session: Session, server: Server, migration: Migration, seen: wire.Observation, fault: wire.Fault | None
) -> None:
    """Note that a server is again what it was, or could not be started as that."""
    if moves.on_same_host(migration):
        _take_back(session, server, migration)
    failed = fault or migration.fault
    moves.close(migration, server, "error" if failed else "reverted")
    server.state = seen["state"]
    server.fault = None
    server.held_in_error = fault is not None
    if fault is not None:
        server.state = states.ERROR
        server.fault = {"code": 500, **fault, "created": as_iso(utcnow())}
    action = _ACTIONS[migration.type] if migration.fault else "revertResize"
    instance_actions.finish(session, [server.id], action=action, host=seen["host"], fault=failed)


def get(session: Session, uuid: str, number: str, *, project_id: str | None) -> Migration:
    """Return one of a server's migrations.

    :param number: its id, as it was given
    :raises accelsched.errors.NotFoundError: when there is no such server, or no such migration of it
    """
    server = servers.get(session, uuid, project_id=project_id).server
    id_ = int(number) if number.isdecimal() and len(number) < 19 else 0
    migration = session.scalar(select(Migration).where(Migration.id == id_, Migration.server_id == server.id))
    if migration is None:
        raise errors.NotFoundError(f"Migration {number[:100]} not found for instance {uuid}")
    return migration


_LIST_KEYS = {"created_at": Migration.created_at, "id": Migration.id}


@dataclass(frozen=True)
class Listed:
    """Which migrations a list shows; None: whichever."""

    status: str | None = None
    type: str | None = None
    host: str | None = None  # either side
    source_host: str | None = None
    server_uuid: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    since: datetime.datetime | None = None  # changed then or later
    before: datetime.datetime | None = None
    marker: str | None = None  # uuid of the last one of the page before
    limit: int | None = None


def list_page(session: Session, wanted: Listed) -> list[tuple[Migration, str]]:
    """Return one page of migrations and the uuids of their servers, the newest first.

    :raises accelsched.errors.InvalidError: when there is no such marker
    """
    asked = [
        (wanted.status, Migration.status == wanted.status),
        (wanted.type, Migration.type == wanted.type),
        (wanted.host, or_(Migration.source_host == wanted.host, Migration.dest_host == wanted.host)),
        (wanted.source_host, Migration.source_host == wanted.source_host),
        (wanted.server_uuid, Server.uuid == wanted.server_uuid),
        (wanted.project_id, Migration.project_id == wanted.project_id),
        (wanted.user_id, Migration.user_id == wanted.user_id),
    ]
    query = cast("Select[Any]", select(Migration, Server.uuid).join(Server, Server.id == Migration.server_id))
    query = query.where(*(condition for value, condition in asked if value is not None))
    if wanted.since is not None:
        query = query.where(Migration.updated_at >= wanted.since)
    if wanted.before is not None:
        query = query.where(Migration.updated_at <= wanted.before)
    marker = None
    if wanted.marker is not None:
        marker = session.scalar(select(Migration).where(Migration.uuid == wanted.marker))
        if marker is None:
            raise errors.InvalidError(f"Marker {wanted.marker[:100]} could not be found.")
    paged = paging.page(query, _LIST_KEYS, [("created_at", "desc"), ("id", "desc")], marker, wanted.limit)
    return [(migration, server_uuid) for migration, server_uuid in session.execute(paged)]
