# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts as operators look at them: how much they have and how much of it is sold."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import os_traits
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import hosts_head
from accelsched.db.compute import Host, HostAggregateMember, Server
from accelsched.db.placement import Inventory, ResourceClass, ResourceProvider
from accelsched.placement import trees


@dataclasses.dataclass(frozen=True)
class Amount:
    """One resource class of a host: VCPUs, MiB or GiB."""

    total: int = 0
    used: int = 0


@dataclasses.dataclass(frozen=True)
class Hypervisor:
    """A host and its use."""

    host: Host
    servers: int
    resources: dict[str, Amount]  # of the host's own provider, by class

    def amount(self, resource_class: str) -> Amount:
        """Return how much of a class there is; nothing of an unknown one."""
        return self.resources.get(resource_class, Amount())


def list_page(
    session: Session, *, hostname_part: str | None = None, marker: str | None = None, limit: int | None = None
) -> list[Hypervisor]:
    """Return one page of hypervisors, in the order in which they were first reported.

    :param hostname_part: text that the hypervisor's hostname contains
    :param marker: node uuid of the last one of the page before
    :raises accelsched.errors.InvalidError: when there is no such marker
    """
    query = select(Host).order_by(Host.id)
    if hostname_part is not None:
        query = query.where(Host.hypervisor["hostname"].as_string().contains(hostname_part, autoescape=True))
    if marker is not None:
        last = session.scalar(select(Host.id).where(Host.node_uuid == marker))
        if last is None:
            raise errors.InvalidError(f"marker [{marker}] not found")
        query = query.where(Host.id > last)
    return _with_use(session, session.scalars(query if limit is None else query.limit(limit)).all())


def get(session: Session, id_: str) -> Hypervisor:
    """Return a hypervisor by its node's uuid, or its number, as versions before 2.53 name it.

    :raises accelsched.errors.NotFoundError: when there is none
    """
    condition = Host.id == int(id_) if id_.isdecimal() and len(id_) < 19 else Host.node_uuid == id_
    host = session.scalar(select(Host).where(condition))
    if host is None:
        raise errors.NotFoundError(f"Compute host {id_} could not be found.")
    return _with_use(session, [host])[0]


def _with_use(session: Session, hosts: Sequence[Host]) -> list[Hypervisor]:
    nodes = [host.node_uuid for host in hosts]
    resources: dict[str, dict[str, Amount]] = {node: {} for node in nodes}
    rows = session.execute(
        select(ResourceProvider.uuid, ResourceClass.name, Inventory.total, Inventory.used)
        .join(Inventory, Inventory.provider_id == ResourceProvider.id)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(ResourceProvider.uuid.in_(nodes))
    )
    for node, resource_class, total, used in rows:
        resources[node][resource_class] = Amount(total, used)
    counts = session.execute(
        select(Server.host, func.count())
        .where(Server.host.in_([host.name for host in hosts]), Server.deleted_at.is_(None))
        .group_by(Server.host)
    )
    servers = dict(counts.all())
    return [Hypervisor(host, servers.get(host.name, 0), resources[host.node_uuid]) for host in hosts]


def servers_on(session: Session, hosts: Sequence[str]) -> dict[str, list[str]]:
    """Return the uuids of the servers on each host that has any."""
    found: dict[str, list[str]] = defaultdict(list)
    rows = session.execute(
        select(Server.host, Server.uuid).where(Server.host.in_(hosts), Server.deleted_at.is_(None)).order_by(Server.id)
    )
    for host, uuid in rows:
        found[str(host)].append(uuid)
    return found


def services(session: Session, *, host: str | None = None) -> Sequence[Host]:
    """Return every host's compute service, in the order in which they were first reported."""
    query = select(Host).order_by(Host.id)
    return session.scalars(query if host is None else query.where(Host.name == host)).all()


def update_service(
    session: Session,
    condition: ColumnElement[bool],
    *,
    disabled: bool | None,
    disabled_reason: str | None,
    forced_down: bool | None,
) -> Host:
    """Let a host have new servers or not, or declare it dead. None leaves a thing as it is.

    :param condition: of :func:`by_id` or :func:`by_host`
    :raises accelsched.errors.NotFoundError: when there is no such service
    """
    host = _service(session, condition)
    if disabled is not None:
        host.disabled = disabled
        host.disabled_reason = disabled_reason if disabled else None
        trees.set_trait(session, host.node_uuid, os_traits.COMPUTE_STATUS_DISABLED, present=disabled)
    if forced_down is not None:
        host.forced_down = forced_down
    hosts_head.advance(session)
    return host


def by_id(id_: str) -> ColumnElement[bool]:
    """Return which host's service goes by an id: a uuid, or the number of versions before 2.53."""
    return Host.id == int(id_) if id_.isdecimal() and len(id_) < 19 else Host.service_uuid == id_


def by_host(name: str) -> ColumnElement[bool]:
    """Return which service is a host's."""
    return Host.name == name


def remove_service(session: Session, condition: ColumnElement[bool]) -> None:
    """Forget a host that is no more, with its resource providers. Should its agent still run, it is reported anew.

    :raises accelsched.errors.NotFoundError: when there is no such service
    :raises accelsched.errors.ConflictError: when it has servers, or something of it is allocated
    """
    host = _service(session, condition)
    on_it = select(Server.id).where(Server.host == host.name, Server.deleted_at.is_(None)).limit(1)
    if session.scalar(on_it) is not None:
        raise errors.ConflictError(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first."
        )
    trees.remove(session, host.reported)
    session.execute(delete(HostAggregateMember).where(HostAggregateMember.host_id == host.id))
    session.delete(host)
    hosts_head.advance(session)


def _service(session: Session, condition: ColumnElement[bool]) -> Host:
    host = session.scalar(select(Host).where(condition).with_for_update())
    if host is None:
        raise errors.NotFoundError("Compute service could not be found.")
    return host
