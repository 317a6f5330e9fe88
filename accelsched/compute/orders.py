# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Orders to servers that are there: the table of what may be ordered when, and how an order is given.

An order is a number that grows with each, and what the server is to be then. Its agent carries out each number once;
how often it hears of it, and who dies meanwhile, makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.compute import accelerators, hosts, live_devices, servers, snapshots, states
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Server

Power = Literal["running", "stopped", "paused", "suspended", "rescued"]


@dataclass(frozen=True)
class Order:
    """One way to change what a server does."""

    action: str  # of the instance action, and in refusals
    vm_states: frozenset[str]  # in which it may be given
    task: str  # task_state until it is carried out
    power: Power | None  # what it is then; None: what it was
    reboot: Literal["soft", "hard"] | None = None
    while_busy: frozenset[str] = frozenset()  # task states that do not stand against it
    while_locked: bool = False  # a lock does not stand against it
    since: str = "1.0"  # version of accelsched.wire from which on agents understand it
    event_of: str = ""  # what Nova calls it in the event's name, where that is not the action

    @property
    def event(self) -> str:
        """Name of the instance action's event."""
        return f"compute_{self.event_of or self.action}_instance"


_REBOOTABLE_TASKS = frozenset({"rebooting", "rebooting_hard", "pausing", "unpausing", "suspending", "resuming"})

START = Order("start", frozenset({"stopped"}), "powering-on", "running")
STOP = Order("stop", frozenset({"active", "error"}), "powering-off", "stopped")
SOFT_REBOOT = Order("reboot", frozenset({"active"}), "rebooting", "running", reboot="soft")
HARD_REBOOT = Order(
    "reboot",
    frozenset({"active", "stopped", "paused", "suspended", "error"}),
    "rebooting_hard",
    "running",
    reboot="hard",
    while_busy=_REBOOTABLE_TASKS,
)
PAUSE = Order("pause", frozenset({"active"}), "pausing", "paused")
UNPAUSE = Order("unpause", frozenset({"paused"}), "unpausing", "running")
SUSPEND = Order("suspend", frozenset({"active"}), "suspending", "suspended")
RESUME = Order("resume", frozenset({"suspended"}), "resuming", "running")
RESCUE = Order("rescue", frozenset({"active", "stopped", "error"}), "rescuing", "rescued", since="1.1")
UNRESCUE = Order("unrescue", frozenset({"rescued"}), "unrescuing", "running", reboot="hard")
SHELVE = Order("shelve", frozenset({"active", "stopped", "paused", "suspended"}), "shelving", "stopped", since="1.1")
CREATE_IMAGE = Order(
    "createImage",
    frozenset({"active", "stopped", "paused", "suspended"}),
    "image_snapshot",
    None,
    while_locked=True,
    since="1.1",
    event_of="snapshot",
)
CREATE_BACKUP = Order(
    "createBackup",
    frozenset({"active", "stopped", "paused", "suspended"}),
    "image_backup",
    None,
    since="1.1",
    event_of="backup",
)

ALL = (
    *(START, STOP, SOFT_REBOOT, HARD_REBOOT, PAUSE, UNPAUSE, SUSPEND, RESUME, RESCUE, UNRESCUE),
    *(CREATE_IMAGE, CREATE_BACKUP, SHELVE),
)
_AS_IT_IS: dict[str, Power] = {
    states.ACTIVE: "running",
    states.STOPPED: "stopped",
    states.PAUSED: "paused",
    states.SUSPENDED: "suspended",
}

# Version of accelsched.wire from which on agents suspend a server with devices that cannot be saved.
_UNSAVED_SINCE = "1.4"


def check(server: Server, host: Host | None, order: Order, *, admin: bool) -> None:
    """Refuse an order that makes no sense now.

    :param host: that the server is on
    :param admin: whether who orders may do so although the server is locked
    :raises accelsched.errors.ConflictError: when the server is locked, in a state that the order makes no sense in, on
        a host whose agent would not understand it, or has devices with which it cannot be carried out
    """
    servers.check_unlocked(server, admin=admin or order.while_locked)
    servers.check_state(server, order.action, order.vm_states, order.while_busy)
    if server.launched_at is None:
        raise errors.ConflictError(f"Cannot '{order.action}' instance {server.uuid}: it has never been active")
    if order is SHELVE:
        accelerators.check_none(server, order.action)
    if host is not None:
        hosts.check_understands(host, order.since, order.action, server.uuid)
        if order is SUSPEND and not hosts.understands(host.rpc_version, _UNSAVED_SINCE):
            unsaved = live_devices.unsaved(server, host)
            if unsaved is not None:
                raise errors.ConflictError(f"Cannot 'suspend' instance {server.uuid}: {unsaved}. Upgrade the agent.")


def give(
    session: Session,
    uuid: str,
    order: Order,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
    beside: Mapping[str, Any] | None = None,
) -> tuple[str, str] | None:
    """Give an order to a server.

    :param project_id: whose server it must be; None for anybody's
    :param admin: whether who orders may do so although the server is locked
    :param beside: what the order says besides power and reboot
    :returns: (agent, host) to tell, None when nobody is there to be told
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: as :func:`check` does
    """
    server = servers.alive(session, uuid, project_id)
    check(server, session.scalar(select(Host).where(Host.name == server.host)), order, admin=admin)
    number = moves.wish(server, order.power or _AS_IT_IS[server.state], order.reboot, beside)["number"]
    server.task = order.task
    server.updated_at = utcnow()
    instance_actions.begin(
        session, [server.id], order.action, origin, event=order.event, order_number=number, host=server.host
    )
    return servers.agent_of(session, server)


def observed(session: Session, server: Server, seen: wire.Observation) -> None:
    """Take over that a server's order was carried out, or could not be."""
    if server.power_order is None or server.task is None:
        return
    if seen.get("order", 0) < server.power_order["number"]:
        if "snapshot" in seen:
            server.task = snapshots.task(server.task, seen["snapshot"])
        return
    server.task = None
    fault = seen.get("order_fault")
    snapshots.ended(session, server.power_order, failed=fault is not None)
    forget_password(server)
    if fault is None:
        server.held_in_error = False
    instance_actions.finish(
        session, [server.id], up_to_order=server.power_order["number"], host=seen["host"], fault=fault
    )


def forget_password(server: Server) -> None:
    """Keep the password that came with a server's order no longer: it is on a config drive, or nobody asks for it."""
    if server.power_order is not None:
        server.power_order = {key: value for key, value in server.power_order.items() if key != "admin_pass"}


def reset_state(
    session: Session,
    uuid: str,
    state: Literal["active", "error"],
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
) -> None:
    """Say what state a server is in, against what was seen.

    :param state: ``error`` holds until an order is carried out or it is reset; ``active`` until its agent sees it
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is on no host, where nobody could see it
    """
    server = servers.alive(session, uuid, project_id)
    if server.state == states.SHELVED:
        raise errors.ConflictError(f"Cannot 'resetState' instance {uuid} while it is on the shelf; unshelve it")
    server.state = state
    server.fault = None
    server.task = None
    server.held_in_error = state == "error"
    server.updated_at = utcnow()
    instance_actions.begin(session, [server.id], "resetState", origin)


def lock(
    session: Session,
    uuid: str,
    reason: str | None,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
) -> None:
    """Keep everybody but administrators from changing a server.

    :param admin: whether an administrator locks it; only one takes that lock off
    :raises accelsched.errors.NotFoundError: when there is no such server
    """
    server = servers.alive(session, uuid, project_id)
    owner = server.project_id == origin.project_id
    if server.locked_by is None or admin:
        server.locked_by = "admin" if admin and not owner else "owner"
    server.locked_reason = reason
    server.updated_at = utcnow()
    instance_actions.begin(session, [server.id], "lock", origin)


def unlock(
    session: Session, uuid: str, origin: instance_actions.Origin, *, project_id: str | None, override: bool
) -> None:
    """Take a lock off.

    :param override: whether an administrator's lock may be taken off
    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ForbiddenError: when the lock is an administrator's
    """
    server = servers.alive(session, uuid, project_id)
    if server.locked_by == "admin" and not override:
        raise errors.ForbiddenError(
            "Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed."
        )
    server.locked_by = server.locked_reason = None
    server.updated_at = utcnow()
    instance_actions.begin(session, [server.id], "unlock", origin)
