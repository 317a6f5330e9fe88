# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Quotas: how much a project or a user may have, and that it does not get more.

What is there is counted in the transaction that adds to it, under a lock of its owner: two requests that would pass
together beyond a limit pass one after the other, and the second finds the first's servers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oslo_config import cfg
from oslo_db import exception as db_exception
from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import key_pairs, server_groups
from accelsched.db.compute import QuotaLimit, QuotaLock, Request, Server

if TYPE_CHECKING:
    from accelsched.compute.servers import NewServers

RESOURCES = (*("instances", "cores", "ram", "metadata_items", "key_pairs", "server_groups", "server_group_members"),)
"""What is limited, by Nova's names."""
UNLIMITED = -1
DEFAULT_CLASS = "default"

_PROJECT, _CLASS = "project", "class"


def defaults(conf: cfg.ConfigOpts) -> dict[str, int]:
    """Return the limits of the configuration, by resource."""
    return {resource: conf.quota[resource] for resource in RESOURCES}


def limits(session: Session, project_id: str, configured: Mapping[str, int]) -> dict[str, int]:
    """Return how much a project may have, by resource: its own limits, the default class's, the configuration's."""
    return _limits(session, configured, (_CLASS, DEFAULT_CLASS), (_PROJECT, project_id))


def class_limits(session: Session, name: str, configured: Mapping[str, int]) -> dict[str, int]:
    """Return the limits of a class, by resource; what it does not say is as configured."""
    return _limits(session, configured, (_CLASS, name))


def _limits(session: Session, configured: Mapping[str, int], *owners: tuple[str, str]) -> dict[str, int]:
    """Return what owners, each a scope and a name, have set, the last counts; else what is configured."""
    owned = (and_(QuotaLimit.scope == scope, QuotaLimit.owner == owner) for scope, owner in owners)
    query = select(QuotaLimit.scope, QuotaLimit.owner, QuotaLimit.resource, QuotaLimit.hard_limit).where(or_(*owned))
    found = {(scope, owner, resource): limit for scope, owner, resource, limit in session.execute(query)}
    set_ = {
        resource: found[*owner, resource] for owner in owners for resource in RESOURCES if (*owner, resource) in found
    }
    return {**configured, **set_}


def set_limits(session: Session, project_id: str, changes: Mapping[str, int], *, force: bool) -> None:
    """Give a project limits of its own.

    :param force: also below what it has already
    :raises accelsched.errors.InvalidError: when it has more already, and nothing is forced
    """
    has = {} if force else used(session, project_id)
    for resource, limit in changes.items():
        if UNLIMITED < limit < has.get(resource, 0):
            raise errors.InvalidError(
                f"Quota limit {limit} for {resource} must be greater than or equal to already used and reserved "
                f"{has[resource]}."
            )
    _write(session, _PROJECT, project_id, changes)


def set_class_limits(session: Session, name: str, changes: Mapping[str, int]) -> None:
    """Give a class limits."""
    _write(session, _CLASS, name, changes)


def _write(session: Session, scope: str, owner: str, changes: Mapping[str, int]) -> None:
    lock(session, scope, owner)
    for resource, limit in changes.items():
        session.merge(QuotaLimit(scope=scope, owner=owner, resource=resource, hard_limit=limit))
    session.flush()


def forget(session: Session, project_id: str) -> None:
    """Take a project's own limits away."""
    session.execute(delete(QuotaLimit).where(QuotaLimit.scope == _PROJECT, QuotaLimit.owner == project_id))


def used(session: Session, project_id: str) -> dict[str, int]:
    """Return how much a project has, by resource; 0 of what a server, a group or a user has."""
    count, vcpus, ram = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(Server.flavor["vcpus"].as_integer()), 0),
            func.coalesce(func.sum(Server.flavor["ram_mb"].as_integer()), 0),
        ).where(Server.project_id == project_id, Server.deleted_at.is_(None))
    ).one()
    return {
        **dict.fromkeys(RESOURCES, 0),
        "instances": int(count),
        "cores": int(vcpus),
        "ram": int(ram),
        "server_groups": server_groups.count(session, project_id),
    }


def lock(session: Session, scope: str, owner: str) -> None:
    """Keep others from adding to what an owner has until the transaction ends.

    :param scope: ``project``, ``class`` or ``user``
    :raises accelsched.errors.LostRaceError: when somebody else made the owner's row at the same time
    """
    name = f"{scope}/{owner}"
    if session.scalar(select(QuotaLock.owner).where(QuotaLock.owner == name).with_for_update()) is not None:
        return
    session.add(QuotaLock(owner=name))
    try:
        session.flush()
    except db_exception.DBDuplicateEntry as exc:
        raise errors.LostRaceError(f"quotas of {name} are counted by somebody else") from exc


def admit_servers(session: Session, new: NewServers, configured: Mapping[str, int]) -> NewServers:
    """Let a project have new servers, of at least ``min_count`` as many as it may; it is locked from then on.

    :raises accelsched.errors.QuotaExceededError: saying what is short
    """
    most = limits(session, new.project_id, configured)
    _check_metadata(most, len(new.metadata))
    wants = {"instances": 1, "cores": int(new.flavor["vcpus"]), "ram": int(new.flavor["ram_mb"])}
    bounded = [resource for resource in wants if most[resource] != UNLIMITED and wants[resource]]
    members = most["server_group_members"] if new.group_uuid is not None else UNLIMITED
    if not bounded and members == UNLIMITED:
        return new
    lock(session, _PROJECT, new.project_id)
    if members != UNLIMITED and _members(session, new.group_uuid) + new.max_count > members:
        raise errors.QuotaExceededError("Quota exceeded, too many servers in group")
    if not bounded:
        return new
    has = used(session, new.project_id)
    room = min((most[resource] - has[resource]) // wants[resource] for resource in bounded)
    if room < new.min_count:
        raise errors.QuotaExceededError(_short(new.min_count, wants, has, {name: most[name] for name in bounded}))
    return dataclasses.replace(new, max_count=min(room, new.max_count))


def admit_growth(
    session: Session,
    project_id: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    configured: Mapping[str, int],
) -> None:
    """Let a server of a project grow from one flavor to another; the project is locked from then on.

    :raises accelsched.errors.QuotaExceededError: saying what is short
    """
    growth = {
        "cores": int(after["vcpus"]) - int(before["vcpus"]),
        "ram": int(after["ram_mb"]) - int(before["ram_mb"]),
    }
    most = limits(session, project_id, configured)
    bounded = {name: most[name] for name, more in growth.items() if more > 0 and most[name] != UNLIMITED}
    if not bounded:
        return
    lock(session, _PROJECT, project_id)
    has = used(session, project_id)
    if any(has[name] + growth[name] > limit for name, limit in bounded.items()):
        raise errors.QuotaExceededError(_short(1, growth, has, bounded))


def _short(count: int, wants: Mapping[str, int], has: Mapping[str, int], most: Mapping[str, int]) -> str:
    over = [name for name, limit in sorted(most.items()) if has[name] + count * wants[name] > limit]
    names = ", ".join(over)
    requested, in_use, allowed = (
        ", ".join(str(amounts[name]) for name in over)
        for amounts in ({name: count * wants[name] for name in over}, has, most)
    )
    return f"Quota exceeded for {names}: Requested {requested}, but already used {in_use} of {allowed} {names}"


def _members(session: Session, group_uuid: str | None) -> int:
    query = select(func.count()).select_from(Server).join(Request, Request.id == Server.request_id)
    return session.scalar(query.where(Request.group_uuid == group_uuid, Server.deleted_at.is_(None))) or 0


def check_metadata(session: Session, project_id: str, count: int, configured: Mapping[str, int]) -> None:
    """Refuse more metadata items than a server of a project may have.

    :raises accelsched.errors.QuotaExceededError: when there are more
    """
    _check_metadata(limits(session, project_id, configured), count)


def _check_metadata(most: Mapping[str, int], count: int) -> None:
    if UNLIMITED != most["metadata_items"] < count:
        raise errors.QuotaExceededError(f"Maximum number of metadata items exceeds {most['metadata_items']}")


def admit_key_pair(session: Session, user_id: str, project_id: str, configured: Mapping[str, int]) -> None:
    """Let a user have one more key pair; the user is locked from then on.

    :param project_id: in which the user asks, whose limit it is
    :raises accelsched.errors.QuotaExceededError: when the user has as many as it may
    """
    most = limits(session, project_id, configured)["key_pairs"]
    if most == UNLIMITED:
        return
    lock(session, "user", user_id)
    if key_pairs.count(session, user_id) >= most:
        raise errors.QuotaExceededError("Quota exceeded, too many key pairs.")


def admit_server_group(session: Session, project_id: str, configured: Mapping[str, int]) -> None:
    """Let a project have one more server group; it is locked from then on.

    :raises accelsched.errors.QuotaExceededError: when it has as many as it may
    """
    most = limits(session, project_id, configured)["server_groups"]
    if most == UNLIMITED:
        return
    lock(session, _PROJECT, project_id)
    if server_groups.count(session, project_id) >= most:
        raise errors.QuotaExceededError("Quota exceeded, too many server groups.")
