# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Availability zones: names that aggregates give to their hosts. A host is in one zone at most."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, exists, not_, or_, select
from sqlalchemy.orm import Session

from accelsched.db.compute import Host, HostAggregate, HostAggregateMember, Request, Server

KEY = "availability_zone"
"""The key of an aggregate's metadata that makes it a zone."""


def of_hosts(session: Session, names: Collection[str] | None = None) -> dict[str, str]:
    """Return the zone of each host that is in one; the others are in the default zone.

    :param names: hosts to look at; all when None
    """
    if names is not None and not names:
        return {}
    query = (
        select(Host.name, HostAggregate.metadata_)
        .join(HostAggregateMember, HostAggregateMember.host_id == Host.id)
        .join(HostAggregate, HostAggregate.id == HostAggregateMember.aggregate_id)
    )
    if names is not None:
        query = query.where(Host.name.in_(names))
    return {name: metadata[KEY] for name, metadata in session.execute(query) if KEY in metadata}


def available(session: Session, default: str) -> set[str]:
    """Return the zones that have an enabled host.

    :param default: zone of hosts that are in none by an aggregate
    """
    in_zone = of_hosts(session)
    return {in_zone.get(name, default) for name in session.scalars(select(Host.name).where(Host.disabled.is_(False)))}


def condition(zone: str, default: str) -> ColumnElement[bool]:
    """Return which servers are in a zone: by their host, and as long as they have none by what was asked for.

    It is for queries that join :class:`Request` and :class:`Host`.

    :param default: zone of hosts that are in none by an aggregate
    """
    name = HostAggregate.metadata_[KEY].as_string()

    def makes(which: ColumnElement[bool]) -> ColumnElement[bool]:
        of_host = HostAggregateMember.aggregate_id == HostAggregate.id, HostAggregateMember.host_id == Host.id
        return exists().where(*of_host, which).correlate(Host)

    on_host = makes(name == zone)
    if zone == default:
        on_host = or_(on_host, not_(makes(name.is_not(None))))
    asked = Request.spec["availability_zone"].as_string() == zone
    return or_(and_(Server.host.is_not(None), on_host), and_(Server.host.is_(None), asked))
