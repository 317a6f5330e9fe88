# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Availability zones: names that aggregates give to their hosts. A host is in one zone at most."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched.db.compute import Host, HostAggregate, HostAggregateMember

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
