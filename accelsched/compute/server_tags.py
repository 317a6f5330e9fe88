# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tags: words that users put on servers, and find them by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, and_, delete, exists, insert, not_, or_, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.compute import Server, ServerTag

MOST = 50
"""Tags of one server."""

# How the tags that a filter names must be on a server, and whether what has them so is left out instead.
_FILTERS = {"tags": (and_, False), "tags-any": (or_, False), "not-tags": (and_, True), "not-tags-any": (or_, True)}
FILTERS = frozenset(_FILTERS)
"""Filters of server lists that look at tags."""

_INSERT_BATCH = 1000


def of_servers(session: Session, server_ids: Sequence[int]) -> Mapping[int, Sequence[str]]:
    """Return the tags of the servers that have any, each server's in order."""
    tags: dict[int, list[str]] = defaultdict(list)
    rows = session.execute(
        select(ServerTag.server_id, ServerTag.tag).where(ServerTag.server_id.in_(server_ids)).order_by(ServerTag.tag)
    )
    for server_id, tag in rows:
        tags[server_id].append(tag)
    return tags


def put(session: Session, server_ids: Sequence[int], tags: Sequence[str]) -> None:
    """Put tags on servers that have none of them."""
    rows = [{"server_id": server_id, "tag": tag} for server_id in server_ids for tag in tags]
    for start in range(0, len(rows), _INSERT_BATCH):
        session.execute(insert(ServerTag), rows[start : start + _INSERT_BATCH])


def add(session: Session, server: Server, tag: str) -> bool:
    """Put a tag on a server, which is locked.

    :returns: whether it was not there before
    :raises accelsched.errors.InvalidError: when the server has as many as it may have
    """
    present = of_servers(session, [server.id]).get(server.id, ())
    if tag in present:
        return False
    if len(present) >= MOST:
        raise errors.InvalidError(f"The number of tags exceeded the per-server limit {MOST}")
    put(session, [server.id], [tag])
    return True


def replace(session: Session, server: Server, tags: Sequence[str]) -> None:
    """Give a server, which is locked, these tags and no others."""
    session.execute(delete(ServerTag).where(ServerTag.server_id == server.id))
    put(session, [server.id], list(dict.fromkeys(tags)))


def remove(session: Session, server: Server, tag: str) -> None:
    """Take a tag off a server.

    :raises accelsched.errors.NotFoundError: when it is not there
    """
    gone = session.execute(delete(ServerTag).where(ServerTag.server_id == server.id, ServerTag.tag == tag))
    if not gone.rowcount:  # type: ignore[attr-defined]
        raise errors.NotFoundError(missing(server, tag))


def missing(server: Server, tag: str) -> str:
    """Say that a server does not have a tag."""
    return f"Server {server.uuid} has no tag '{tag[:60]}'"


def condition(name: str, tags: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition of a filter of server lists.

    :param name: one of :data:`FILTERS`
    """
    joined, negated = _FILTERS[name]
    has = joined(*(exists().where(ServerTag.server_id == Server.id, ServerTag.tag == tag) for tag in tags))
    return not_(has) if negated else has
