# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Server groups where it counts: as they are when a decision is read, and again when it is written down."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accelsched.db.compute import Request, Server, ServerGroup
from accelsched.scheduler.pipeline import Selection


def members_by_host(session: Session, group_uuid: str) -> dict[str, int]:
    """Return how many members of a group each host has that has any."""
    rows = session.execute(
        select(Server.host, func.count())
        .join(Request, Request.id == Server.request_id)
        .where(Request.group_uuid == group_uuid, Server.deleted_at.is_(None), Server.host.is_not(None))
        .group_by(Server.host)
    )
    return {str(host): count for host, count in rows}


def keeping_policy(session: Session, group_uuid: str | None, selections: Iterable[Selection]) -> list[Selection]:
    """Return those selections that keep the group's policy as its members are now.

    The group is locked for the rest of the transaction, so that two schedulers which place members of it at the same
    time see each other's. Soft policies are wishes, not rules: they were seen to when hosts were weighed.

    :param group_uuid: None, or a group that is gone, allows everything
    """
    chosen = list(selections)
    if group_uuid is None:
        return chosen
    group = session.scalar(select(ServerGroup).where(ServerGroup.uuid == group_uuid).with_for_update())
    if group is None or group.policy not in ("affinity", "anti-affinity"):
        return chosen
    members = members_by_host(session, group_uuid)
    kept: list[Selection] = []
    for selection in chosen:
        host = selection.host.name
        if group.policy == "affinity":
            allowed = not members or host in members
        else:
            allowed = members.get(host, 0) < (group.max_server_per_host or 1)
        if allowed:
            members[host] = members.get(host, 0) + 1
            kept.append(selection)
    return kept
