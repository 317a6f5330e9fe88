# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Have a guest's kernel write a crash dump: Nova's ``trigger_crash_dump``.

It is no order: nothing about the server changes, what is under way goes on, and nobody would want it once more because
a process died before it had noted that it was done.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.compute import hosts, servers, states
from accelsched.db import instance_actions
from accelsched.db.compute import Host

ACTION = "trigger_crash_dump"
SINCE = "1.3"  # version of accelsched.wire from which on agents understand it
_VM_STATES = frozenset({"active", "paused", "rescued", "resized", "error"})


class Where(NamedTuple):
    """Who is to be asked."""

    server_id: int
    agent: str
    host: str


def begin(
    session: Session, uuid: str, origin: instance_actions.Origin, *, project_id: str | None, admin: bool
) -> Where:
    """Write down that a crash dump was asked for.

    :param admin: whether who asks may do so although the server is locked
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is locked, in a state in which nothing of it runs, on no host, or
        on one whose agent would not understand it
    """
    server = servers.alive(session, uuid, project_id)
    servers.check_unlocked(server, admin=admin)
    vm_state = states.of(server).vm_state
    if vm_state not in _VM_STATES:
        raise errors.ConflictError(f"Cannot '{ACTION}' instance {uuid} while it is in vm_state {vm_state}")
    host = session.scalar(select(Host).where(Host.name == server.host))
    if host is None:
        raise errors.ConflictError(f"Instance {uuid} is not ready")
    hosts.check_understands(host, SINCE, ACTION, uuid)
    instance_actions.begin(session, [server.id], ACTION, origin, event=f"compute_{ACTION}", host=host.name)
    return Where(server.id, host.agent, host.name)


def ended(session: Session, where: Where, fault: wire.Fault | None) -> None:
    """Write down how that went.

    :param fault: None when the guest was told
    """
    instance_actions.finish(session, [where.server_id], action=ACTION, host=where.host, fault=fault)
