# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Server groups: which servers shall share a host, and which shall not."""

from __future__ import annotations

import dataclasses
import uuid
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.compute import Request, Server, ServerGroup


@dataclasses.dataclass(frozen=True)
class Shown:
    """A group and its members, by uuid, in the order of their creation."""

    group: ServerGroup
    members: Sequence[str]


def create(
    session: Session, *, project_id: str, user_id: str, name: str, policy: str, max_server_per_host: int | None
) -> Shown:
    """Make a group without members."""
    group = ServerGroup(
        uuid=str(uuid.uuid4()),
        project_id=project_id,
        user_id=user_id,
        name=name,
        policy=policy,
        max_server_per_host=max_server_per_host,
    )
    session.add(group)
    session.flush()
    return Shown(group, [])


def get(session: Session, uuid_: str, *, project_id: str | None) -> Shown:
    """Return a group.

    :param project_id: whose it must be; None for anybody's
    :raises accelsched.errors.NotFoundError: when there is none
    """
    return _shown(session, [_row(session, uuid_, project_id)])[0]


def list_page(session: Session, *, project_id: str | None, limit: int, offset: int) -> list[Shown]:
    """Return some groups, in the order of their creation.

    :param project_id: whose; None for everybody's
    """
    query = select(ServerGroup).order_by(ServerGroup.id).limit(limit).offset(offset)
    if project_id is not None:
        query = query.where(ServerGroup.project_id == project_id)
    return _shown(session, session.scalars(query).all())


def remove(session: Session, uuid_: str, *, project_id: str | None) -> None:
    """Delete a group; its members stay where they are.

    :raises accelsched.errors.NotFoundError: when there is none
    """
    group = _row(session, uuid_, project_id)
    session.execute(delete(ServerGroup).where(ServerGroup.id == group.id))


def count(session: Session, project_id: str) -> int:
    """Return how many groups a project has."""
    return (
        session.scalar(select(func.count()).select_from(ServerGroup).where(ServerGroup.project_id == project_id)) or 0
    )


def of_server(session: Session, server_uuid: str) -> list[str]:
    """Return the uuid of the group that a server is in, if it is in one that still exists."""
    return list(
        session.scalars(
            select(ServerGroup.uuid)
            .join(Request, Request.group_uuid == ServerGroup.uuid)
            .join(Server, Server.request_id == Request.id)
            .where(Server.uuid == server_uuid)
        )
    )


def _row(session: Session, uuid_: str, project_id: str | None) -> ServerGroup:
    query = select(ServerGroup).where(ServerGroup.uuid == uuid_)
    if project_id is not None:
        query = query.where(ServerGroup.project_id == project_id)
    group = session.scalar(query)
    if group is None:
        raise errors.NotFoundError(f"Instance group {uuid_[:100]} could not be found.")
    return group


def _shown(session: Session, groups: Sequence[ServerGroup]) -> list[Shown]:
    members: dict[str, list[str]] = defaultdict(list)
    rows = session.execute(
        select(Request.group_uuid, Server.uuid)
        .join(Server, Server.request_id == Request.id)
        .where(Request.group_uuid.in_([group.uuid for group in groups]), Server.deleted_at.is_(None))
        .order_by(Server.id)
    )
    for group_uuid, server_uuid in rows:
        members[str(group_uuid)].append(server_uuid)
    return [Shown(group, members[group.uuid]) for group in groups]
