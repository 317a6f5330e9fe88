# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the scheduler wrote down about a server's request, seen from the server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.compute import Decision, Request, Server, as_iso


def explain(session: Session, uuid: str, *, project_id: str | None) -> dict[str, Any]:
    """Return why a server is where it is, a deleted one's too, as long as decisions are kept.

    :param project_id: whose it must be; None for anybody's
    :returns: what the scheduler.explanation.Explanation of the decision that counts says, and of the server:
        ``server``, ``request``, ``state``, ``attempts``, ``selection`` (host, devices, scores; None without a place)
    :raises accelsched.errors.NotFoundError: when there is no such server, or nothing is known about it (yet)
    """
    query = select(Server, Request).join(Request, Request.id == Server.request_id).where(Server.uuid == uuid)
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
    row = session.execute(query).one_or_none()
    if row is None:
        raise errors.NotFoundError(f"Server {uuid} could not be found.")
    server, request = row
    moves = select(Request.id).where(Request.server_id == server.id)
    rows = session.scalars(
        select(Decision)
        .where(or_(Decision.request_id == request.id, Decision.request_id.in_(moves)))
        .order_by(Decision.id)
    ).all()
    if not rows:
        pending = request.state == "pending"
        why = "no scheduler has decided about it yet" if pending else "its explanation is not kept any more"
        raise errors.NotFoundError(f"Server {uuid} has no explanation: {why}.")
    # Of several attempts, the last that placed this server counts; for one without a place, the last of all.
    decisive = next((row for row in reversed(rows) if uuid in row.explanation.get("selections", {})), rows[-1])
    told = dict(decisive.explanation)
    selections = told.pop("selections", {})
    return told | {
        "server": {"id": server.uuid, "name": server.name, "project_id": server.project_id},
        "request": {"id": request.uuid, "count": request.count, "min_count": request.min_count},
        "state": server.state,
        "fault": server.fault["message"] if server.fault else None,
        "decided_at": as_iso(decisive.created_at),
        "attempt": decisive.sequence + 1,
        "attempts": len(rows),
        "selection": selections.get(uuid),
    }
