# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Server groups where it counts: as they are when a decision is read, and again when it is written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import select, true
from sqlalchemy.orm import Session

from accelsched.db.compute import Migration, Request, Server, ServerGroup
from accelsched.scheduler.pipeline import Selection

_APART = frozenset({"anti-affinity", "soft-anti-affinity"})


def members_by_host(session: Session, group_uuid: str, policy: str, but: str | None = None) -> Counter[str]:
    """Return how many members of a group each host has that has any.

    A member that moves may end up on either side. Those that must be apart from it stay off both; those that must be
    with it go where it goes.

    :param but: uuid of a member that does not count, for it is its own place that is looked for
    """
    rows = session.execute(
        select(Server.host, Migration.source_host, Migration.dest_host, Migration.status)
        .join(Request, Request.id == Server.request_id)
        .outerjoin(Migration, Migration.id == Server.migration_id)
        .where(Request.group_uuid == group_uuid, Server.deleted_at.is_(None), Server.host.is_not(None))
        .where(true() if but is None else Server.uuid != but)
    )
    members: Counter[str] = Counter()
    for host, source, dest, status in rows:
        if policy in _APART:
            members.update(str(side) for side in {host, source, dest} - {None})
        else:
            members[str(source if status == "reverting" else dest or host)] += 1
    return members


def keeping_policy(
    session: Session, group_uuid: str | None, selections: Iterable[Selection], but: str | None = None
) -> list[Selection]:
    """Return those selections that keep the group's policy as its members are now.

    The group is locked for the rest of the transaction, so that two schedulers which place members of it at the same
    time see each other's. Soft policies are wishes, not rules: they were seen to when hosts were weighed.

    :param group_uuid: None, or a group that is gone, allows everything
    :param but: as of :func:`members_by_host`
    """
    chosen = list(selections)
    if group_uuid is None:
        return chosen
    group = session.scalar(select(ServerGroup).where(ServerGroup.uuid == group_uuid).with_for_update())
    if group is None or group.policy not in ("affinity", "anti-affinity"):
        return chosen
    members = members_by_host(session, group_uuid, group.policy, but)
    kept: list[Selection] = []
    for selection in chosen:
        host = selection.host.name
        if group.policy == "affinity":
            allowed = not members or host in members
        else:
            allowed = members[host] < (group.max_server_per_host or 1)
        if allowed:
            members[host] += 1
            kept.append(selection)
    return kept
