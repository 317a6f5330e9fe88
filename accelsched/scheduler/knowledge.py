# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads the facts of a decision. Hosts and aggregates are kept in memory and read again when they have changed."""

from __future__ import annotations

import datetime
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from accelsched.db import hosts_head
from accelsched.db.base import utcnow
from accelsched.db.compute import Heartbeat, Host, HostAggregate, HostAggregateMember, Request, Server, ServerGroup
from accelsched.db.engine import Database
from accelsched.placement.picture import Ints
from accelsched.scheduler.facts import Count, Facts, Group, ImageProperties
from accelsched.scheduler.groups import members_by_host
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.table import Aggregate, HostRow, HostTable

# Heartbeats are looked at this often, and all of them, not only new ones, that often.
_HEARTBEATS_S = 1.0
_ALL_HEARTBEATS_S = 15.0
# Clocks of controllers, which write heartbeats down, may differ by this.
_CLOCKS = datetime.timedelta(seconds=2)
_EPOCH = datetime.datetime(1970, 1, 1)


class Knowledge:
    """One a process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._seq: int | None = None
        self._table = HostTable([], np.zeros(0))
        self._index_of: dict[int, int] = {}  # by Host.id
        self._newest = _EPOCH
        self._looked = self._looked_at_all = 0.0

    def facts(self, request: RequestSpec, needs_of: Callable[[Collection[str]], Collection[str]]) -> Facts:
        """Return the facts of a decision about a request.

        :param needs_of: given the keys of aggregates' metadata, says what else plug-ins need: a
            :data:`accelsched.scheduler.facts.Count`, or ``images``
        """
        with self._lock, self._db.snapshot() as session:
            self._catch_up(session)
            table = self._table
            needs = needs_of(table.keys)
            return Facts(
                table,
                now=_seconds(utcnow()),
                group=_group(session, request, table),
                located=_located(session, request),
                counts=_counts(session, table, needs),
                images=_images(session) if "images" in needs else {},
            )

    def table(self) -> HostTable:
        """Return the hosts as they are now."""
        with self._lock, self._db.snapshot() as session:
            self._catch_up(session)
            return self._table

    def _catch_up(self, session: Session) -> None:
        newest = hosts_head.read(session)
        if newest != self._seq:
            self._table, self._index_of = _read_hosts(session)
            self._seq = newest
            self._read_heartbeats(session, everything=True)
            return
        now = time.monotonic()
        if now - self._looked >= _HEARTBEATS_S:
            self._read_heartbeats(session, everything=now - self._looked_at_all >= _ALL_HEARTBEATS_S)

    def _read_heartbeats(self, session: Session, *, everything: bool) -> None:
        self._looked = time.monotonic()
        query = select(Heartbeat.host_id, Heartbeat.seen_at)
        if everything:
            self._looked_at_all = self._looked
        else:
            query = query.where(Heartbeat.seen_at >= self._newest - _CLOCKS)
        for id_, seen in session.execute(query):
            index = self._index_of.get(id_)
            if index is not None:
                self._table.last_seen[index] = _seconds(seen)
                self._newest = max(self._newest, seen)


def _read_hosts(session: Session) -> tuple[HostTable, dict[int, int]]:
    aggregates = {
        id_: Aggregate(uuid, name, metadata)
        for id_, uuid, name, metadata in session.execute(
            select(HostAggregate.id, HostAggregate.uuid, HostAggregate.name, HostAggregate.metadata_)
        )
    }
    of_host: dict[int, list[Aggregate]] = defaultdict(list)
    members = select(HostAggregateMember.host_id, HostAggregateMember.aggregate_id)
    for host_id, aggregate_id in session.execute(members.order_by(HostAggregateMember.aggregate_id)):
        of_host[host_id].append(aggregates[aggregate_id])
    columns = (
        *(Host.id, Host.name, Host.node_uuid, Host.agent, Host.simulated, Host.disabled, Host.forced_down),
        *(Host.hypervisor, Host.failed_builds),
    )
    rows: list[HostRow] = []
    index_of: dict[int, int] = {}
    for id_, *fields in session.execute(select(*columns).order_by(Host.id)):
        index_of[id_] = len(rows)
        rows.append(HostRow(*fields, *[tuple(of_host.get(id_, ()))]))
    return HostTable(rows, np.zeros(len(rows)), list(aggregates.values())), index_of


def _group(session: Session, request: RequestSpec, table: HostTable) -> Group | None:
    uuid = request.hints.get("group")
    if uuid is None:
        return None
    row = session.execute(
        select(ServerGroup.policy, ServerGroup.max_server_per_host).where(ServerGroup.uuid == uuid)
    ).one_or_none()
    if row is None:  # deleted since the request was made: nothing binds its members any more
        return None
    return Group(row[0], row[1] or 1, table.tally(members_by_host(session, uuid, row[0], request.server)))


def _located(session: Session, request: RequestSpec) -> Mapping[str, str]:
    uuids = [*request.hinted("same_host"), *request.hinted("different_host")]
    if not uuids:
        return {}
    rows = session.execute(
        select(Server.uuid, Server.host).where(
            Server.uuid.in_(uuids), Server.deleted_at.is_(None), Server.host.is_not(None)
        )
    )
    return {uuid: str(host) for uuid, host in rows}


def _counts(session: Session, table: HostTable, needs: Collection[str]) -> dict[Count, Ints]:
    counts: dict[Count, Ints] = {}
    query = select(Server.host, func.count()).where(Server.deleted_at.is_(None), Server.host.is_not(None))
    if "servers" in needs:
        counts["servers"] = _tally(session, table, query.group_by(Server.host))
    if "io_ops" in needs:
        building = query.where(Server.state == "building")
        counts["io_ops"] = _tally(session, table, building.group_by(Server.host))
    return counts


def _tally(session: Session, table: HostTable, query: Select[str | None, int]) -> Ints:
    return table.tally({str(host): count for host, count in session.execute(query)})


def _images(session: Session) -> dict[str, tuple[tuple[ImageProperties, int], ...]]:
    # Servers of one request have one image: its properties are read once, not for each of a thousand servers.
    counted = session.execute(
        select(Server.host, Server.request_id, func.count())
        .where(Server.deleted_at.is_(None), Server.host.is_not(None))
        .group_by(Server.host, Server.request_id)
    ).all()
    properties = {
        id_: (image or {}).get("properties", {})
        for id_, image in session.execute(
            select(Request.id, Request.spec["image"]).where(Request.id.in_({row[1] for row in counted}))
        )
    }
    found: dict[str, list[tuple[ImageProperties, int]]] = defaultdict(list)
    for host, request_id, count in counted:
        found[str(host)].append((properties[request_id], count))
    return {host: tuple(of_host) for host, of_host in found.items()}


def _seconds(moment: datetime.datetime) -> float:
    return (moment - _EPOCH).total_seconds()
