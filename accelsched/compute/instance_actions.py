# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Read what users had done to servers; :mod:`accelsched.db.instance_actions` writes it."""

from __future__ import annotations

import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import paging
from accelsched.db.compute import InstanceAction

_COLUMNS = {"updated_at": InstanceAction.updated_at, "created_at": InstanceAction.started_at, "id": InstanceAction.id}


def list_page(
    session: Session,
    server_id: int,
    *,
    since: datetime.datetime | None = None,
    before: datetime.datetime | None = None,
    marker: str | None = None,
    limit: int | None = None,
) -> list[InstanceAction]:
    """Return a server's actions, the newest first.

    :param since: only those that changed then or later
    :param before: only those that changed then or earlier
    :param marker: request id of the last action of the page before
    :raises accelsched.errors.InvalidError: when the marker is none of the server's
    """
    query = select(InstanceAction).where(InstanceAction.server_id == server_id)
    if since is not None:
        query = query.where(InstanceAction.updated_at >= since)
    if before is not None:
        query = query.where(InstanceAction.updated_at <= before)
    last = None
    if marker is not None:
        last = _by_request(session, server_id, marker)
        if last is None:
            raise errors.InvalidError(f"marker [{marker[:100]}] not found")
    return list(session.scalars(paging.page(query, _COLUMNS, [("id", "desc")], last, limit)))


def get(session: Session, server_id: int, request_id: str) -> InstanceAction:
    """Return a server's action by the id of the request that asked for it.

    :raises accelsched.errors.NotFoundError: when there is none
    """
    found = _by_request(session, server_id, request_id)
    if found is None:
        raise errors.NotFoundError(f"Action for request_id {request_id[:100]} not found")
    return found


def _by_request(session: Session, server_id: int, request_id: str) -> InstanceAction | None:
    query = select(InstanceAction).where(InstanceAction.server_id == server_id, InstanceAction.request_id == request_id)
    return session.scalars(query.order_by(InstanceAction.id).limit(1)).one_or_none()
