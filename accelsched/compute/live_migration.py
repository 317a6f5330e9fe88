# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers are not moved while they run; which of the reasons stands against one, it is told before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import servers
from accelsched.db.compute import Host, Server

_VM_STATES = frozenset({"active", "paused"})


def refuse(session: Session, uuid: str, target: str | None, *, project_id: str | None, admin: bool) -> NoReturn:
    """Say why a server cannot go to another host while it runs, the first reason first.

    :param target: the host that it should go to; None for any
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is locked, or in a state in which nobody could move it
    :raises accelsched.errors.InvalidError: in all other cases
    """
    server = servers.alive(session, uuid, project_id)
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, "os-migrateLive", _VM_STATES)
    if target is not None:
        if target == server.host:
            raise errors.InvalidError(f"Unable to migrate instance ({uuid}) to current host ({target}).")
        if session.scalar(select(Host.id).where(Host.name == target)) is None:
            raise errors.InvalidError(f"Compute host {target} could not be found.")
    raise errors.InvalidError(f"Migration pre-check error: {reason(server)}")


def reason(server: Server) -> str:
    """Return what stands against moving a server while it runs, and what can be done instead."""
    held = [_told(device) for device in server.devices if device["provider_uuid"] != server.node_uuid]
    instead = "it can be moved with a shutdown: openstack server migrate."
    if held:
        return (
            f"the server has {', '.join(held)}, and what is in a device that is passed through cannot be carried over "
            f"by this release; {instead}"
        )
    return f"the server's disk is on its host alone, and this release does not copy a disk that is in use; {instead}"


def _told(device: Mapping[str, Any]) -> str:
    amounts = ", ".join(f"{amount} {name}" for name, amount in sorted(device["resources"].items()))
    return f"{amounts} of {device['provider_name']}"
