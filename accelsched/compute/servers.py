# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers: what users want of them is written here; what happens to them, controllers and agents write."""

from __future__ import annotations

import dataclasses
import secrets
import string
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, insert, select, update
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import hostnames, paging, server_tags, snapshots, states, zones
from accelsched.db import bindings, instance_actions
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Request, Server

SORT_COLUMNS = {
    "access_ip_v4": Server.access_ip_v4,
    "access_ip_v6": Server.access_ip_v6,
    "created_at": Server.created_at,
    "display_description": Server.description,
    "display_name": Server.name,
    "host": Server.host,
    "hostname": Server.hostname,
    "id": Server.id,
    "key_name": Server.key_name,
    "launch_index": Server.launch_index,
    "launched_at": Server.launched_at,
    "locked_by": Server.locked_by,
    "node": Server.node_uuid,
    "project_id": Server.project_id,
    "task_state": Server.state,
    "terminated_at": Server.deleted_at,
    "updated_at": Server.updated_at,
    "user_id": Server.user_id,
    "uuid": Server.uuid,
    "vm_state": Server.state,
}
_RESERVATION_ALPHABET = string.ascii_lowercase + string.digits
# SQL statements of more rows than this grow faster than they gain.
_INSERT_BATCH = 1000
# Nova's states in which tags and metadata may be changed.
_SETTLED = frozenset({"active", "paused", "suspended", "stopped"})


@dataclasses.dataclass(frozen=True)
class Key:
    """A key pair's name and its public key."""

    name: str
    public_key: str


@dataclasses.dataclass(frozen=True)
class NewServers:
    """One create call: one or many servers alike."""

    project_id: str
    user_id: str
    name: str
    metadata: Mapping[str, str]
    flavor: Mapping[str, Any]  # wire.FlavorSpec and id, ephemeral_gb, swap_mb
    image: Mapping[str, Any] | None  # wire.ImageSpec
    user_data: str | None  # base64
    config_drive: bool
    spec: Mapping[str, Any]  # scheduler.request.RequestSpec, as a dictionary
    min_count: int
    max_count: int
    origin: instance_actions.Origin
    group_uuid: str | None = None  # server group that they are to be members of
    key: Key | None = None  # that the guests are to let in
    description: str | None = None
    hostname: str | None = None  # None: it follows from the name
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    auto_disk_config: bool = False
    tags: Sequence[str] = ()
    networks: Literal["none", "auto"] = "none"
    admin_pass: str | None = None  # None: no guest is told any


@dataclasses.dataclass(frozen=True)
class Created:
    """What a create call made."""

    reservation_id: str
    uuids: list[str]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A server and what is kept beside it."""

    server: Server
    reservation_id: str
    availability_zone: str | None  # as the user asked for
    host: Host | None
    host_zone: str | None = None  # that the host is in; None for the default one
    tags: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Query:
    """Which servers a list shows, in which order."""

    conditions: Sequence[ColumnElement[bool]]
    sort: paging.Sort
    project_id: str | None  # None: of every project
    deleted: bool | None = False  # None: both
    marker: str | None = None
    limit: int | None = None


def create(session: Session, new: NewServers) -> Created:
    """Write a request and its servers, in one transaction; a scheduler finds them.

    :raises accelsched.errors.InvalidError: when the numbered names get too long
    """
    names = _names(new.name, new.max_count)
    uuids = [str(uuid.uuid4()) for _ in names]
    hostnames_ = hostnames.numbered(new.hostname, names, uuids)
    request = Request(
        uuid=reservation_id(),
        project_id=new.project_id,
        user_id=new.user_id,
        spec=dict(new.spec),
        group_uuid=new.group_uuid,
        count=new.max_count,
        min_count=new.min_count,
    )
    session.add(request)
    session.flush()
    now = utcnow()
    common = {
        "request_id": request.id,
        "project_id": new.project_id,
        "user_id": new.user_id,
        "description": new.description,
        "access_ip_v4": new.access_ip_v4,
        "access_ip_v6": new.access_ip_v6,
        "auto_disk_config": new.auto_disk_config,
        "metadata_": dict(new.metadata),
        "flavor": dict(new.flavor),
        "image": None if new.image is None else dict(new.image),
        "user_data": new.user_data,
        "key_name": None if new.key is None else new.key.name,
        "public_key": None if new.key is None else new.key.public_key,
        "config_drive": new.config_drive,
        "networks": new.networks,
        "admin_pass": new.admin_pass,
        "desired": "active",
        "state": states.SCHEDULING,
        "detail": "",
        "devices": [],
        "created_at": now,
        "updated_at": now,
    }
    rows = [
        {**common, "uuid": uuid_, "name": name, "hostname": hostname, "launch_index": index}
        for index, (uuid_, name, hostname) in enumerate(zip(uuids, names, hostnames_, strict=True))
    ]
    for start in range(0, len(rows), _INSERT_BATCH):
        session.execute(insert(Server), rows[start : start + _INSERT_BATCH])
    ids = session.scalars(select(Server.id).where(Server.request_id == request.id)).all()
    server_tags.put(session, ids, new.tags)
    instance_actions.begin(session, ids, "create", new.origin, event="compute__do_build_and_run_instance")
    return Created(request.uuid, uuids)


def _names(name: str, count: int) -> list[str]:
    names = [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
    if len(names[-1]) > 255:
        raise errors.InvalidError(f"Server name: with the number that max_count adds it is longer than 255: {name}")
    return names


def _shown() -> Select[Any]:
    zone = Request.spec["availability_zone"].as_string()
    return (
        select(Server, Request.uuid, zone, Host)
        .join(Request, Request.id == Server.request_id)
        .outerjoin(Host, Host.name == Server.host)
    )


def get(session: Session, uuid_: str, *, project_id: str | None, deleted: bool = False) -> Shown:
    """Return a server.

    :param project_id: whose it must be, for anybody else it does not exist; None for any project's
    :param deleted: return it also when it is deleted
    :raises accelsched.errors.NotFoundError: when there is none
    """
    query = _shown().where(Server.uuid == uuid_)
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
    if not deleted:
        query = query.where(Server.deleted_at.is_(None))
    row = session.execute(query).one_or_none()
    if row is None:
        raise errors.NotFoundError(f"Instance {uuid_} could not be found.")
    return _with_the_rest(session, [row])[0]


def list_page(session: Session, query: Query) -> list[Shown]:
    """Return one page of servers.

    :raises accelsched.errors.InvalidError: when the marker is no server that the query could show
    """
    shown = _shown().where(*query.conditions)
    if query.project_id is not None:
        shown = shown.where(Server.project_id == query.project_id)
    if query.deleted is not None:
        shown = shown.where(Server.deleted_at.is_not(None) if query.deleted else Server.deleted_at.is_(None))
    marker = None
    if query.marker is not None:
        found = select(Server).where(Server.uuid == query.marker)
        if query.project_id is not None:
            found = found.where(Server.project_id == query.project_id)
        marker = session.scalar(found)
        if marker is None:
            raise errors.InvalidError(f"marker [{query.marker}] not found")
    paged = paging.page(shown, SORT_COLUMNS, [*query.sort, ("id", "desc")], marker, query.limit)
    return _with_the_rest(session, session.execute(paged).all())


def _with_the_rest(session: Session, rows: Sequence[Any]) -> list[Shown]:
    in_zone = zones.of_hosts(session, {row[0].host for row in rows if row[0].host is not None})
    tags = server_tags.of_servers(session, [row[0].id for row in rows])
    return [
        Shown(server, reservation_id, asked, host, in_zone.get(server.host), tags.get(server.id, ()))
        for server, reservation_id, asked, host in rows
    ]


def alive(session: Session, uuid_: str, project_id: str | None) -> Server:
    """Return the row of a server that is not deleted, locked, by the rules of :func:`get`.

    :raises accelsched.errors.NotFoundError: when there is none
    """
    query = select(Server).where(Server.uuid == uuid_, Server.deleted_at.is_(None)).with_for_update()
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
    server = session.scalar(query)
    if server is None:
        raise errors.NotFoundError(f"Instance {uuid_} could not be found.")
    return server


def reservation_id() -> str:
    """Return a new request's id, as users see it."""
    return "r-" + "".join(secrets.choice(_RESERVATION_ALPHABET) for _ in range(12))


def agent_of(session: Session, server: Server) -> tuple[str, str] | None:
    """Return (agent, host) that a server's agent is told by, None when nobody is there to be told."""
    agent = session.scalar(select(Host.agent).where(Host.name == server.host))
    return None if agent is None or server.host is None else (agent, server.host)


def check_state(
    server: Server, action: str, vm_states: Collection[str], while_busy: Collection[str] = frozenset()
) -> None:
    """Refuse what makes no sense in the state that a server is in.

    :param vm_states: in which it does
    :param while_busy: task states that do not stand against it
    :raises accelsched.errors.ConflictError: naming the state
    """
    state = states.of(server)
    for attribute, value, fits in (
        ("vm_state", state.vm_state, state.vm_state in vm_states),
        ("task_state", state.task_state, state.task_state is None or state.task_state in while_busy),
    ):
        if not fits:
            raise errors.ConflictError(f"Cannot '{action}' instance {server.uuid} while it is in {attribute} {value}")


def check_unlocked(server: Server, *, admin: bool) -> None:
    """Refuse to change a server that is locked.

    :param admin: administrators may all the same
    :raises accelsched.errors.ConflictError: when it is
    """
    if server.locked_by is not None and not admin:
        raise errors.ConflictError(f"Instance {server.uuid} is locked")


def delete(
    session: Session, uuid_: str, origin: instance_actions.Origin, *, project_id: str | None, admin: bool
) -> tuple[str, str] | None:
    """Want a server no longer. Wanting it twice changes nothing.

    One that no scheduler has put on a host is gone at once. A scheduler claims by an UPDATE that asks for servers
    still wanted, and this one asks for servers still without a host: whichever comes first, the other sees it.

    :param admin: whether who deletes it may do so although it is locked
    :returns: (agent, host) to tell, None when there is nobody to tell
    :raises accelsched.errors.NotFoundError: when there is none
    :raises accelsched.errors.ConflictError: when it is locked
    """
    server = alive(session, uuid_, project_id)
    check_unlocked(server, admin=admin)
    now = utcnow()
    if server.desired != "deleted":
        snapshots.abandon(session, server, "The server was deleted meanwhile.")
        if server.shelved_image is not None:
            snapshots.unwanted(session, [server.shelved_image["id"]])
        session.execute(
            update(Server)
            .where(Server.id == server.id)
            .values(desired="deleted", task=None, admin_pass=None, updated_at=now)
        )
        instance_actions.begin(
            session, [server.id], "delete", origin, event="compute_terminate_instance", host=server.host
        )
    gone = session.execute(
        update(Server)
        .where(Server.id == server.id, Server.host.is_(None), Server.deleted_at.is_(None))
        .values(deleted_at=now)
    )
    if gone.rowcount:  # type: ignore[attr-defined]
        bindings.server_gone(session, server.id, ())
        instance_actions.finish(session, [server.id], action="delete")
        return None
    return agent_of(session, server)


def describe(session: Session, uuid_: str, changes: Mapping[str, Any], *, project_id: str | None) -> None:
    """Change what a server is called and said to be.

    :param changes: new values by column: name, description, hostname, access_ip_v4, access_ip_v6, auto_disk_config
    :raises accelsched.errors.NotFoundError: when there is none
    """
    server = alive(session, uuid_, project_id)
    for column, value in changes.items():
        setattr(server, column, value)
    server.updated_at = utcnow()


def settled(session: Session, uuid_: str, what: str, *, project_id: str | None) -> Server:
    """Return a server that may be written on: one that was built and is not in error; locked, as :func:`alive` does.

    :param what: is to be done, for the error
    :raises accelsched.errors.NotFoundError: when there is none
    :raises accelsched.errors.ConflictError: when it is in another state
    """
    server = alive(session, uuid_, project_id)
    vm_state = states.of(server).vm_state
    if vm_state not in _SETTLED:
        raise errors.ConflictError(f"Cannot '{what}' instance {uuid_} while it is in vm_state {vm_state}")
    return server


def set_metadata(
    session: Session, uuid_: str, metadata: Mapping[str, str], *, project_id: str | None, replace: bool, admin: bool
) -> Server:
    """Add metadata items to a server's, or replace all of them, and return it.

    :param admin: whether who changes it may do so although the server is locked
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is locked, or not :func:`settled`
    """
    server = settled(session, uuid_, "update metadata", project_id=project_id)
    check_unlocked(server, admin=admin)
    server.metadata_ = dict(metadata) if replace else {**server.metadata_, **metadata}
    server.updated_at = utcnow()
    return server


def remove_metadata(session: Session, uuid_: str, key: str, *, project_id: str | None, admin: bool) -> None:
    """Remove one metadata item.

    :param admin: whether who changes it may do so although the server is locked
    :raises accelsched.errors.NotFoundError: when there is no such server or it has no such item
    :raises accelsched.errors.ConflictError: when it is locked, or not :func:`settled`
    """
    server = settled(session, uuid_, "delete metadata", project_id=project_id)
    check_unlocked(server, admin=admin)
    if key not in server.metadata_:
        raise errors.NotFoundError("Metadata item was not found")
    server.metadata_ = {name: value for name, value in server.metadata_.items() if name != key}
    server.updated_at = utcnow()
