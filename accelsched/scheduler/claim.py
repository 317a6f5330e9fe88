# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Write a decision down: allocations and hosts of all its servers in one transaction.

Others decide at the same time. What no longer fits when the providers are locked is left out and placed again; the
rest stands.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Text, and_, bindparam, func, insert, or_, select, text, update
from sqlalchemy.orm import Session

from accelsched import wire
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Decision as DecisionRow
from accelsched.db.compute import Migration, Request, Server, as_iso
from accelsched.placement import capacity_rules, claims
from accelsched.placement.numa import store as numa_store
from accelsched.scheduler import groups
from accelsched.scheduler.pipeline import Selection

T = TypeVar("T")

CONSUMER_TYPE = "INSTANCE"
_MOVES = ("evacuate", "unshelve", "resize", "migrate", "live-migration")  # instance actions that want another host
# Tasks of servers that are there and want a host, or another one.
_MOVING = ("rebuilding", "unshelving", "resize_prep")
# Of migrations that want a host.
_UNPLACED = ("pre-migrating", "queued")


class Unplaced(NamedTuple):
    """A server that still wants a host."""

    id: int
    uuid: str
    project_id: str
    user_id: str
    failed_hosts: Sequence[str]


def _wanting(requests: Sequence[Request]) -> ColumnElement[bool]:
    """Return what holds for the servers of some requests that still want a host.

    One that is to move wants another host until its next incarnation has one.
    """
    new = [request.id for request in requests if request.server_id is None]
    moving = [request.server_id for request in requests if request.server_id is not None]
    wanting = []
    if new:
        wanting.append(and_(Server.request_id.in_(new), Server.host.is_(None), Server.state == "scheduling"))
    if moving:
        wanting.append(and_(Server.id.in_(moving), Server.task.in_(_MOVING), Server.incarnation == Server.built))
        queued = select(Migration.server_id).where(Migration.server_id.in_(moving), Migration.status == "queued")
        wanting.append(and_(Server.id.in_(queued), Server.task == moves.LIVE_TASK))
    return and_(or_(*wanting), Server.desired == "active", Server.deleted_at.is_(None))


def _by_request(requests: Sequence[Request], found: Iterable[tuple[int, int, T]]) -> dict[int, list[T]]:
    """Sort what was found of servers by the id of the request that places them.

    :param found: the server's id, the id of the request that made it, and anything
    """
    moved_by = {request.server_id: request.id for request in requests if request.server_id is not None}
    sorted_: dict[int, list[T]] = {request.id: [] for request in requests}
    for server_id, request_id, what in found:
        sorted_[moved_by.get(server_id, request_id)].append(what)
    return sorted_


def unplaced(session: Session, requests: Sequence[Request], *, lock: bool = False) -> dict[int, list[Unplaced]]:
    """Return the servers of requests that still want a host, by request, in the order of their creation."""
    columns = (Server.id, Server.uuid, Server.project_id, Server.user_id, Server.failed_hosts, Server.request_id)
    query = select(*columns).where(_wanting(requests)).order_by(Server.id)
    rows = session.execute(query.with_for_update() if lock else query)
    return _by_request(requests, ((row.id, row.request_id, Unplaced(*row[:-1])) for row in rows))


def count_unplaced(session: Session, requests: Sequence[Request]) -> dict[int, int]:
    """Return how many servers of requests still want a host, by request."""
    rows = session.execute(select(Server.id, Server.request_id).where(_wanting(requests)))
    found = _by_request(requests, ((id_, request_id, id_) for id_, request_id in rows))
    return {request_id: len(ids) for request_id, ids in found.items()}


def _count_placed(session: Session, request: Request) -> int:
    placed = select(func.count()).select_from(Server).where(Server.request_id == request.id, Server.host.is_not(None))
    return session.scalar(placed) or 0


@dataclasses.dataclass(frozen=True)
class Taken:
    """What came of selections.

    :ivar won: (server uuid, selection) of those that got theirs; the other servers are as they were
    :ivar lost: whether another scheduler was quicker with some of them
    :ivar too_few: whether none was taken because the request would have had fewer than its min_count
    """

    won: list[tuple[str, Selection]]
    lost: bool
    too_few: bool = False


def take(session: Session, request: Request, selections: Sequence[Selection]) -> Taken:
    """Give the selections to the request's servers: :func:`take_each` of one."""
    (taken,) = take_each(session, [(request, selections)])
    return taken


def take_each(session: Session, decided: Sequence[tuple[Request, Sequence[Selection]]]) -> list[Taken]:
    """Give the selections to the requests' servers, as far as they still fit, those of earlier requests first.

    Either a request's min_count or none: two requests that held a part each, waiting for the rest, would both fail
    where one of them fits. Once builds have failed, others of the request may run already, and each is placed that can
    be.
    """
    # Servers deleted meanwhile want nothing any more: selections go to those that are left.
    allowed = [
        groups.keeping_policy(session, request.group_uuid, selections, request.spec.get("server"))
        for request, selections in decided
    ]
    servers = unplaced(session, [request for request, _ in decided], lock=True)
    migrations = _migrations(session, [request for request, _ in decided])
    pairs = [
        list(zip(servers[request.id], may, strict=False)) for (request, _), may in zip(decided, allowed, strict=True)
    ]
    changes = {
        server.uuid: claims.ConsumerAllocation(
            server.uuid,
            server.project_id,
            server.user_id,
            selection.allocations,
            consumer_type=CONSUMER_TYPE,
            # A new server holds nothing; one that is built anew lets go of what it held, and one that may come back
            # has handed it over.
            generation=None if request.server_id is None or request.id in migrations else claims.ANY_GENERATION,
        )
        for (request, _), some in zip(decided, pairs, strict=True)
        for server, selection in some
    }
    fit = {change.consumer_uuid for change in claims.fitting(session, list(changes.values()))}
    numa = {
        server.uuid: (selection.host.node_uuid, selection.numa)
        for server, selection in itertools.chain(*pairs)
        if server.uuid in fit and selection.numa is not None
    }
    fit -= numa.keys() - numa_store.fitting(session, numa)
    each: list[Taken] = []
    rows: list[dict[str, Any]] = []
    for (request, selections), may, some in zip(decided, allowed, pairs, strict=True):
        won = [(server, selection) for server, selection in some if server.uuid in fit]
        lost = len(may) < len(selections) or len(won) < len(some)
        together = request.server_id is None and not any(server.failed_hosts for server in servers[request.id])
        if (
            together
            and len(won) < len(servers[request.id])
            and len(won) + _count_placed(session, request) < request.min_count
        ):
            each.append(Taken([], lost, too_few=True))
            continue
        each.append(Taken([(server.uuid, selection) for server, selection in won], lost))
        rows += [_row(request, server, selection) for server, selection in won]
    uuids = [uuid for taken in each for uuid, _ in taken.won]
    for (request, _), taken in zip(decided, each, strict=True):
        for uuid, _selection in taken.won:
            if request.id in migrations:
                claims.hand_over(session, uuid, migrations[request.id].uuid, "MIGRATION")
    claims.replace(session, [changes[uuid] for uuid in uuids])
    numa_store.write(session, {uuid: numa[uuid] for uuid in uuids if uuid in numa})
    positions = capacity_rules.positions_of(session, uuids)
    selected = dict(itertools.chain(*(taken.won for taken in each)))
    for uuid, row in zip(uuids, rows, strict=True):
        row["given"] = json.dumps(_devices(selected[uuid], positions.get(uuid, {})))
    moving = {migration.server_id: migration for migration in migrations.values()}
    _write_down(session, [row for row in rows if row["server"] not in moving])
    for row in rows:
        if row["server"] in moving:
            given, cells = (None if row[name] is None else json.loads(row[name]) for name in ("given", "cells"))
            server = session.get_one(Server, row["server"])
            moves.place(session, moving[row["server"]], server, row["on"], row["node"], given or [], cells)
    return each


def _migrations(session: Session, requests: Sequence[Request]) -> dict[int, Migration]:
    """Return the moves that requests are about, by request; those that are built anew elsewhere are none."""
    ids = [request.id for request in requests if request.server_id is not None]
    if not ids:
        return {}
    found = session.scalars(
        select(Migration).where(Migration.request_id.in_(ids), Migration.status.in_(_UNPLACED)).with_for_update()
    )
    return {migration.request_id: migration for migration in found}


def _row(request: Request, server: Unplaced, selection: Selection) -> dict[str, Any]:
    """Return what is written of where a server goes, but for what it is given there."""
    moves = request.server_id is not None
    return {
        "server": server.id,
        "on": selection.host.name,
        "node": selection.host.node_uuid,
        "given": None,
        "cells": None if selection.numa is None else json.dumps(numa_of(selection)),
        "becomes": None if moves else "building",
        "steps": int(moves),
    }


_DETAIL = "waiting for the host's agent"
_PLACED_EACH = (
    update(Server)
    .where(Server.id == bindparam("server"))
    .values(
        host=bindparam("on"),
        node_uuid=bindparam("node"),
        devices=bindparam("given", type_=Text),
        numa=bindparam("cells", type_=Text),
        state=func.coalesce(bindparam("becomes"), Server.state),
        incarnation=Server.incarnation + bindparam("steps"),
        detail=_DETAIL,
        updated_at=bindparam("now"),
    )
)
# Where a list of parameters would be as many round trips.
_PLACED_TOGETHER = text(
    "UPDATE servers SET host = placed.host, node_uuid = placed.node, devices = CAST(placed.given AS json), "
    "numa = CAST(placed.cells AS json), state = coalesce(placed.becomes, state), "
    "incarnation = incarnation + placed.steps, detail = :detail, updated_at = :now "
    "FROM unnest(CAST(:server AS bigint[]), CAST(:on AS text[]), CAST(:node AS text[]), CAST(:given AS text[]), "
    "CAST(:cells AS text[]), CAST(:becomes AS text[]), CAST(:steps AS integer[])) "
    "AS placed (id, host, node, given, cells, becomes, steps) WHERE servers.id = placed.id"
)


def _write_down(session: Session, placed: Sequence[Mapping[str, Any]]) -> None:
    """Write where servers go and what they are given there."""
    if not placed:
        return
    connection = session.connection()
    now = utcnow()
    if connection.dialect.name == "postgresql":
        columns = {name: [row[name] for row in placed] for name in placed[0]}
        connection.execute(_PLACED_TOGETHER, {**columns, "now": now, "detail": _DETAIL})
    else:
        connection.execute(_PLACED_EACH, [{**row, "now": now} for row in placed])


def _devices(selection: Selection, positions: Mapping[tuple[str, str], list[int]]) -> list[dict[str, Any]]:
    """Return what a server was given, each unit with its position where it has one.

    :param positions: by provider uuid and class, for all of the server's groups together
    """
    left = {key: iter(starts) for key, starts in positions.items()}
    devices: list[dict[str, Any]] = []
    for device in selection.devices:
        seated = {
            name: list(itertools.islice(left[device["provider_uuid"], name], amount))
            for name, amount in device["resources"].items()
            if (device["provider_uuid"], name) in left
        }
        devices.append({**device, "positions": seated} if seated else dict(device))
    return devices


def numa_of(selection: Selection) -> list[dict[str, Any]] | None:
    """Return where a server's NUMA nodes are, as it is kept: wire.NumaPlacedNode each."""
    return None if selection.numa is None else [dict(node.to_wire()) for node in selection.numa]


def give_up(session: Session, request: Request, message: str) -> None:
    """Mark what could not be placed: status ERROR, with the reason as its fault. What could not move stays as it is."""
    now = utcnow()
    query = select(Server).where(_wanting([request])).order_by(Server.id).with_for_update()
    left = session.scalars(query).all()
    fault: wire.Fault = {"message": message, "details": ""}
    for server in left:
        server.updated_at = now
        if request.server_id is not None:
            server.task = None
            for migration in _migrations(session, [request]).values():
                fault = moves.with_tried(migration, fault)
                migration.fault = dict(fault)
                moves.close(migration, server, "error")
            continue
        tried = f" Builds failed on {', '.join(server.failed_hosts)}." if server.failed_hosts else ""
        last = f" The last: {server.fault['message']}" if server.failed_hosts and server.fault else ""
        shown = {"code": 500, "message": f"{message}{tried}{last}", "details": "", "created": as_iso(now)}
        server.state, server.fault = "error", shown
    for action in ("create",) if request.server_id is None else _MOVES:
        instance_actions.finish(session, [server.id for server in left], action=action, fault=fault)


def explain(session: Session, explanations: Sequence[tuple[int, int, Mapping[str, Any]]]) -> None:
    """Keep why requests went where they went.

    :param explanations: the request's id, the number of the decision among the request's, and the explanation
    """
    session.execute(
        insert(DecisionRow),
        [
            {"request_id": request_id, "sequence": sequence, "explanation": dict(explanation)}
            for request_id, sequence, explanation in explanations
        ],
    )


def decisions(session: Session, requests: Sequence[Request]) -> Counter[int]:
    """Return how many decisions were written down for requests, by request."""
    ids = [request.id for request in requests]
    return Counter(session.scalars(select(DecisionRow.request_id).where(DecisionRow.request_id.in_(ids))).all())
