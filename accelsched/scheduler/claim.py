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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, bindparam, func, select, text, update
from sqlalchemy.orm import Session

from accelsched.db import instance_actions
from accelsched.db.base import utcnow
from accelsched.db.compute import Decision as DecisionRow
from accelsched.db.compute import Request, Server, as_iso
from accelsched.placement import capacity_rules, claims
from accelsched.placement.numa import store as numa_store
from accelsched.scheduler import groups
from accelsched.scheduler.pipeline import Selection

CONSUMER_TYPE = "INSTANCE"
# Tasks of servers that are there and want a host, or another one.
_MOVING = ("rebuilding", "unshelving")


class Unplaced(NamedTuple):
    """A server that still wants a host."""

    id: int
    uuid: str
    project_id: str
    user_id: str
    failed_hosts: Sequence[str]


def _wanting(request: Request) -> ColumnElement[bool]:
    """Return what holds for the servers of a request that still want a host.

    One that is to move wants another host until its next incarnation has one.
    """
    if request.server_id is None:
        wanting = [Server.request_id == request.id, Server.host.is_(None), Server.state == "scheduling"]
    else:
        wanting = [Server.id == request.server_id, Server.task.in_(_MOVING), Server.incarnation == Server.built]
    return and_(*wanting, Server.desired == "active", Server.deleted_at.is_(None))


def unplaced(session: Session, request: Request, *, lock: bool = False) -> list[Unplaced]:
    """Return the servers of a request that still want a host, in the order of their creation."""
    columns = (Server.id, Server.uuid, Server.project_id, Server.user_id, Server.failed_hosts)
    query = select(*columns).where(_wanting(request)).order_by(Server.id)
    return [Unplaced(*row) for row in session.execute(query.with_for_update() if lock else query)]


def count_unplaced(session: Session, request: Request) -> int:
    """Return how many servers of a request still want a host."""
    return session.scalar(select(func.count()).select_from(Server).where(_wanting(request))) or 0


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
    """Give the selections to the request's servers, as far as they still fit.

    Either its min_count or none: two requests that held a part each, waiting for the rest, would both fail where one
    of them fits. Once builds have failed, others of the request may run already, and each is placed that can be.
    """
    allowed = groups.keeping_policy(session, request.group_uuid, selections)
    # Servers deleted meanwhile want nothing any more: selections go to those that are left.
    servers = unplaced(session, request, lock=True)
    pairs = list(zip(servers, allowed, strict=False))
    changes = [
        claims.ConsumerAllocation(
            server.uuid,
            server.project_id,
            server.user_id,
            selection.allocations,
            consumer_type=CONSUMER_TYPE,
            # A new server holds nothing; one that moves lets go of what it held.
            generation=None if request.server_id is None else claims.ANY_GENERATION,
        )
        for server, selection in pairs
    ]
    fit = {change.consumer_uuid for change in claims.fitting(session, changes)}
    numa = {
        server.uuid: (selection.host.node_uuid, selection.numa)
        for server, selection in pairs
        if server.uuid in fit and selection.numa is not None
    }
    fit -= numa.keys() - numa_store.fitting(session, numa)
    lost = len(allowed) < len(selections) or len(fit) < len(changes)
    together = request.server_id is None and not any(server.failed_hosts for server in servers)
    if together and len(fit) < len(servers) and len(fit) + _count_placed(session, request) < request.min_count:
        return Taken([], lost, too_few=True)
    claims.replace(session, [change for change in changes if change.consumer_uuid in fit])
    numa_store.write(session, {uuid: held for uuid, held in numa.items() if uuid in fit})
    won = [(server, selection) for server, selection in pairs if server.uuid in fit]
    positions = capacity_rules.positions_of(session, fit)
    _write_down(
        session,
        [
            {
                "server": server.id,
                "on": selection.host.name,
                "node": selection.host.node_uuid,
                "given": json.dumps(_devices(selection, positions.get(server.uuid, {}))),
                "cells": None if selection.numa is None else json.dumps(numa_of(selection)),
            }
            for server, selection in won
        ],
        moves=request.server_id is not None,
    )
    return Taken([(server.uuid, selection) for server, selection in won], lost)


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
    "numa = CAST(placed.cells AS json), state = coalesce(CAST(:becomes AS varchar), state), "
    "incarnation = incarnation + :steps, detail = :detail, updated_at = :now "
    "FROM unnest(CAST(:server AS bigint[]), CAST(:on AS text[]), CAST(:node AS text[]), CAST(:given AS text[]), "
    "CAST(:cells AS text[])) AS placed (id, host, node, given, cells) WHERE servers.id = placed.id"
)


def _write_down(session: Session, placed: Sequence[Mapping[str, Any]], *, moves: bool) -> None:
    """Write where servers go and what they are given there."""
    if not placed:
        return
    connection = session.connection()
    common = {"becomes": None if moves else "building", "steps": int(moves), "now": utcnow()}
    if connection.dialect.name == "postgresql":
        columns = {name: [row[name] for row in placed] for name in placed[0]}
        connection.execute(_PLACED_TOGETHER, {**columns, **common, "detail": _DETAIL})
    else:
        connection.execute(_PLACED_EACH, [{**row, **common} for row in placed])


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
    query = select(Server).where(_wanting(request)).order_by(Server.id).with_for_update()
    left = session.scalars(query).all()
    for server in left:
        server.updated_at = now
        if request.server_id is not None:
            server.task = None
            continue
        tried = f" Builds failed on {', '.join(server.failed_hosts)}." if server.failed_hosts else ""
        last = f" The last: {server.fault['message']}" if server.failed_hosts and server.fault else ""
        fault = {"code": 500, "message": f"{message}{tried}{last}", "details": "", "created": as_iso(now)}
        server.state, server.fault = "error", fault
    for action in ("create",) if request.server_id is None else ("evacuate", "unshelve"):
        instance_actions.finish(
            session, [server.id for server in left], action=action, fault={"message": message, "details": ""}
        )


def explain(session: Session, request_id: int, sequence: int, explanation: Mapping[str, Any]) -> None:
    """Keep why a request went where it went."""
    session.add(DecisionRow(request_id=request_id, sequence=sequence, explanation=dict(explanation)))


def decisions(session: Session, request_id: int) -> int:
    """Return how many decisions were written down for a request."""
    return session.scalar(select(func.count()).where(DecisionRow.request_id == request_id)) or 0
