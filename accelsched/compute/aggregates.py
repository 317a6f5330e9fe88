# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Host aggregates: sets of hosts with metadata, mirrored into the resource database's aggregates."""

from __future__ import annotations

import dataclasses
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from oslo_db import exception as db_exception
from sqlalchemy import delete, exists, insert, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import zones
from accelsched.db import hosts_head
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, HostAggregate, HostAggregateMember, Request, Server
from accelsched.placement import aggregates as placement_aggregates


@dataclasses.dataclass(frozen=True)
class Shown:
    """An aggregate and the names of its hosts, in the order in which they were first reported."""

    aggregate: HostAggregate
    hosts: Sequence[str]


def list_all(session: Session) -> list[Shown]:
    """Return every aggregate."""
    return _shown(session, session.scalars(select(HostAggregate).order_by(HostAggregate.id)).all())


def get(session: Session, id_: int) -> Shown:
    """Return an aggregate.

    :raises accelsched.errors.NotFoundError: when there is none
    """
    return _shown(session, [_row(session, id_)])[0]


def create(session: Session, name: str, zone: str | None) -> Shown:
    """Make an aggregate without hosts.

    :param zone: availability zone that its hosts shall be in
    :raises accelsched.errors.DuplicateNameError: when the name is taken
    """
    _check_name(session, name)
    aggregate = HostAggregate(uuid=str(uuid.uuid4()), name=name, metadata_={} if zone is None else {zones.KEY: zone})
    session.add(aggregate)
    try:
        session.flush()
    except db_exception.DBDuplicateEntry as exc:  # somebody else took it between the look and the write
        raise errors.DuplicateNameError(f"Aggregate {name} already exists.") from exc
    hosts_head.advance(session)
    return Shown(aggregate, [])


def update(session: Session, id_: int, *, name: str | None = None, zone: str | None = None) -> Shown:
    """Rename an aggregate, or make it another zone; None leaves a thing as it is.

    :raises accelsched.errors.NotFoundError: when there is none
    :raises accelsched.errors.DuplicateNameError: when the name is taken
    :raises accelsched.errors.InvalidError: when its hosts cannot be in that zone
    """
    aggregate = _row(session, id_, lock=True)
    if name is not None and name != aggregate.name:
        _check_name(session, name)
        aggregate.name = name
    if zone is not None:
        _put_metadata(session, aggregate, {zones.KEY: zone})
    return _written(session, aggregate)


def set_metadata(session: Session, id_: int, metadata: Mapping[str, str | None]) -> Shown:
    """Add or change items of an aggregate's metadata; the value None removes one.

    :raises accelsched.errors.NotFoundError: when there is no such aggregate
    :raises accelsched.errors.InvalidError: when its hosts cannot be in the zone that it names, or leave it
    """
    aggregate = _row(session, id_, lock=True)
    _put_metadata(session, aggregate, metadata)
    return _written(session, aggregate)


def add_host(session: Session, id_: int, name: str) -> Shown:
    """Put a host into an aggregate.

    :raises accelsched.errors.NotFoundError: when there is no such aggregate or host
    :raises accelsched.errors.ConflictError: when it is in it already, or would be in two zones, or servers on it asked
        for the zone that it would leave
    """
    aggregate = _row(session, id_, lock=True)
    host = _host(session, name)
    row = {"aggregate_id": aggregate.id, "host_id": host.id}
    if session.get(HostAggregateMember, row) is not None:
        raise errors.ConflictError(f"Aggregate {id_} already has host {name}.")
    zone = aggregate.metadata_.get(zones.KEY)
    if zone is not None:
        _check_one_zone(session, aggregate, zone, [host.id])
        _check_servers_may_stay(session, [name], zone)
    session.execute(insert(HostAggregateMember), [row])
    placement_aggregates.join(session, host.node_uuid, aggregate.uuid)
    return _written(session, aggregate)


def remove_host(session: Session, id_: int, name: str) -> Shown:
    """Take a host out of an aggregate.

    :raises accelsched.errors.NotFoundError: when there is no such aggregate or host, or the host is not in it
    :raises accelsched.errors.ConflictError: when servers on it asked for the zone that it would leave
    """
    aggregate = _row(session, id_, lock=True)
    host = _host(session, name)
    member = session.get(HostAggregateMember, {"aggregate_id": aggregate.id, "host_id": host.id})
    if member is None:
        raise errors.NotFoundError(f"Aggregate {id_} has no host {name}.")
    zone = aggregate.metadata_.get(zones.KEY)
    if zone is not None and not _in_zone_by_another(session, aggregate, host):
        _check_servers_may_stay(session, [name], None)
    session.delete(member)
    session.flush()
    placement_aggregates.leave(session, host.node_uuid, aggregate.uuid)
    return _written(session, aggregate)


def remove(session: Session, id_: int) -> None:
    """Delete an aggregate that has no hosts.

    :raises accelsched.errors.NotFoundError: when there is none
    :raises accelsched.errors.InvalidError: when it has hosts
    """
    aggregate = _row(session, id_, lock=True)
    if session.scalar(select(exists().where(HostAggregateMember.aggregate_id == aggregate.id))):
        raise errors.InvalidError(f"Cannot delete aggregate {id_}. Reason: Host aggregate is not empty.")
    session.execute(delete(HostAggregate).where(HostAggregate.id == aggregate.id))
    hosts_head.advance(session)


def _row(session: Session, id_: int, *, lock: bool = False) -> HostAggregate:
    query = select(HostAggregate).where(HostAggregate.id == id_)
    aggregate = session.scalar(query.with_for_update() if lock else query)
    if aggregate is None:
        raise errors.NotFoundError(f"Aggregate {id_} could not be found.")
    return aggregate


def _host(session: Session, name: str) -> Host:
    # Locked, so that two aggregates cannot put it into two zones at the same moment.
    host = session.scalar(select(Host).where(Host.name == name).with_for_update())
    if host is None:
        raise errors.NotFoundError(f"Compute host {name} could not be found.")
    return host


def _shown(session: Session, aggregates: Sequence[HostAggregate]) -> list[Shown]:
    names: dict[int, list[str]] = defaultdict(list)
    query = select(HostAggregateMember.aggregate_id, Host.name).join(Host, Host.id == HostAggregateMember.host_id)
    if len(aggregates) == 1:
        query = query.where(HostAggregateMember.aggregate_id == aggregates[0].id)
    for aggregate_id, name in session.execute(query.order_by(Host.id)):
        names[aggregate_id].append(name)
    return [Shown(aggregate, names[aggregate.id]) for aggregate in aggregates]


def _written(session: Session, aggregate: HostAggregate) -> Shown:
    aggregate.updated_at = utcnow()
    hosts_head.advance(session)
    return _shown(session, [aggregate])[0]


def _check_name(session: Session, name: str) -> None:
    if session.scalar(select(exists().where(HostAggregate.name == name))):
        raise errors.DuplicateNameError(f"Aggregate {name} already exists.")


def _put_metadata(session: Session, aggregate: HostAggregate, changes: Mapping[str, str | None]) -> None:
    before = aggregate.metadata_.get(zones.KEY)
    merged = {**aggregate.metadata_, **changes}
    aggregate.metadata_ = {key: value for key, value in merged.items() if value is not None}
    after = aggregate.metadata_.get(zones.KEY)
    if after == before:
        return
    members = session.execute(
        select(Host.id, Host.name)
        .join(HostAggregateMember, HostAggregateMember.host_id == Host.id)
        .where(HostAggregateMember.aggregate_id == aggregate.id)
        .order_by(Host.id)
        .with_for_update(of=Host)
    ).all()
    try:
        if after is not None:
            _check_one_zone(session, aggregate, after, [id_ for id_, _ in members])
        _check_servers_may_stay(session, [name for _, name in members], after)
    except errors.ConflictError as exc:  # Nova answers 400 here and 409 when a host is added
        raise errors.InvalidError(str(exc)) from exc


def _check_one_zone(session: Session, aggregate: HostAggregate, zone: str, host_ids: Collection[int]) -> None:
    elsewhere = session.scalars(
        select(HostAggregate.metadata_)
        .join(HostAggregateMember, HostAggregateMember.aggregate_id == HostAggregate.id)
        .where(HostAggregateMember.host_id.in_(host_ids), HostAggregate.id != aggregate.id)
    )
    others = {metadata[zones.KEY] for metadata in elsewhere if zones.KEY in metadata} - {zone}
    if others:
        raise errors.ConflictError(
            f"Aggregate {aggregate.id} cannot be in zone {zone}: one or more hosts already in availability zone(s) "
            + ", ".join(sorted(others))
        )


def _in_zone_by_another(session: Session, aggregate: HostAggregate, host: Host) -> bool:
    others = session.scalars(
        select(HostAggregate.metadata_)
        .join(HostAggregateMember, HostAggregateMember.aggregate_id == HostAggregate.id)
        .where(HostAggregateMember.host_id == host.id, HostAggregate.id != aggregate.id)
    )
    return any(zones.KEY in metadata for metadata in others)


def _check_servers_may_stay(session: Session, hosts: Collection[str], zone: str | None) -> None:
    """Refuse to take a zone from under servers that asked for it.

    :param zone: that the hosts will be in; None for the default one
    """
    asked = Request.spec["availability_zone"].as_string()
    query = (
        select(Server.host, asked)
        .join(Request, Request.id == Server.request_id)
        .where(Server.host.in_(hosts), Server.deleted_at.is_(None), asked.is_not(None))
    )
    if zone is not None:
        query = query.where(asked != zone)
    held = session.execute(query.limit(1)).one_or_none()
    if held is not None:
        raise errors.ConflictError(
            f"Host {held[0]} holds servers that asked for availability zone {held[1]}; move or delete them first."
        )
