# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a server's row says, in Nova's words.

===================  ===============  =========  =============  ==========
row                  status           vm_state   task_state     power
===================  ===============  =========  =============  ==========
scheduling           BUILD            building   scheduling     none
building             BUILD            building   spawning       none
active               ACTIVE           active                    running
stopped              SHUTOFF          stopped                   shut down
paused               PAUSED           paused                    paused
suspended            SUSPENDED        suspended                 shut down
rescued              RESCUE           rescued                   running
resized              VERIFY_RESIZE    resized                   running
resized-stopped      VERIFY_RESIZE    resized                   shut down
shelved              SHELVED_         shelved_                  shut down
                     OFFLOADED        offloaded
error                ERROR            error                     none
under an order       as its state *   ...        the order's    ...
to be deleted        as its state     ...        deleting       ...
deleted_at is set    DELETED          deleted                   none
===================  ===============  =========  =============  ==========

``*`` but REBOOT or HARD_REBOOT while an active one is rebooted, REBUILD while one is built anew, RESIZE while one
moves, REVERT_RESIZE while it goes back and MIGRATING while it moves as it runs.
"""

from __future__ import annotations

import dataclasses

from sqlalchemy import ColumnElement, and_, false, not_, or_

from accelsched.db.compute import Server

SCHEDULING = "scheduling"
BUILDING = "building"
ACTIVE = "active"
STOPPED = "stopped"
PAUSED = "paused"
SUSPENDED = "suspended"
RESCUED = "rescued"
SHELVED = "shelved"
RESIZED = "resized"
RESIZED_STOPPED = "resized-stopped"
ERROR = "error"

NO_POWER_STATE, RUNNING, PAUSED_POWER, SHUT_DOWN = 0, 1, 3, 4

# Every status that Nova knows; a list filtered by another one is empty as well, but not by mistake.
NOVA_STATUSES = frozenset(
    {
        *("ACTIVE", "BUILD", "DELETED", "ERROR", "HARD_REBOOT", "MIGRATING", "PASSWORD", "PAUSED", "REBOOT", "REBUILD"),
        *("RESCUE", "RESIZE", "REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED", "SHUTOFF", "SOFT_DELETED", "SUSPENDED"),
        *("UNKNOWN", "VERIFY_RESIZE"),
    }
)


@dataclasses.dataclass(frozen=True)
class NovaState:
    """The four ways in which Nova tells a server's state."""

    status: str
    vm_state: str
    task_state: str | None
    power_state: int


_STATES = {
    SCHEDULING: NovaState("BUILD", "building", "scheduling", NO_POWER_STATE),
    BUILDING: NovaState("BUILD", "building", "spawning", NO_POWER_STATE),
    ACTIVE: NovaState("ACTIVE", "active", None, RUNNING),
    STOPPED: NovaState("SHUTOFF", "stopped", None, SHUT_DOWN),
    PAUSED: NovaState("PAUSED", "paused", None, PAUSED_POWER),
    SUSPENDED: NovaState("SUSPENDED", "suspended", None, SHUT_DOWN),
    RESCUED: NovaState("RESCUE", "rescued", None, RUNNING),
    RESIZED: NovaState("VERIFY_RESIZE", "resized", None, RUNNING),
    RESIZED_STOPPED: NovaState("VERIFY_RESIZE", "resized", None, SHUT_DOWN),
    SHELVED: NovaState("SHELVED_OFFLOADED", "shelved_offloaded", None, SHUT_DOWN),
    ERROR: NovaState("ERROR", "error", None, NO_POWER_STATE),
}
_DELETED = NovaState("DELETED", "deleted", None, NO_POWER_STATE)
# A status that a task gives to a server in a state.
_BY_TASK = {
    (ACTIVE, "rebooting"): "REBOOT",
    (ACTIVE, "rebooting_hard"): "HARD_REBOOT",
    (ACTIVE, "rebuilding"): "REBUILD",
    (STOPPED, "rebuilding"): "REBUILD",
    (ERROR, "rebuilding"): "REBUILD",
    **{
        (state, task): "RESIZE"
        for state in (ACTIVE, STOPPED)
        for task in ("resize_prep", "resize_migrating", "resize_finish")
    },
    **{(state, "migrating"): "MIGRATING" for state in (ACTIVE, PAUSED)},
    **{(state, "resize_reverting"): "REVERT_RESIZE" for state in (ACTIVE, STOPPED, RESIZED, RESIZED_STOPPED)},
}


def of(server: Server) -> NovaState:
    """Return a server's state in Nova's words."""
    if server.deleted_at is not None:
        return _DELETED
    state = _STATES[server.state]
    if server.desired == "deleted":
        return dataclasses.replace(state, task_state="deleting")
    if server.task is None:
        return state
    status = _BY_TASK.get((server.state, server.task), state.status)
    return dataclasses.replace(state, status=status, task_state=server.task)


def having(status: str) -> ColumnElement[bool]:
    """Return the condition that a server's row must meet to have a status.

    :param status: in Nova's words, upper case; one that no server here ever has matches nothing
    """
    if status == "DELETED":
        return Server.deleted_at.is_not(None)
    states = [name for name, state in _STATES.items() if state.status == status]
    otherwise = [
        and_(Server.state == state, Server.task == task)
        for (state, task), name in _BY_TASK.items()
        if state in states or name == status
    ]
    if not states:
        return and_(or_(*otherwise), Server.deleted_at.is_(None)) if otherwise else false()
    plain = [Server.state.in_(states), Server.deleted_at.is_(None)]
    # A task's status takes the place of the state's own; without a task the comparison would be unknown, not false.
    return and_(*plain, or_(Server.task.is_(None), not_(or_(*otherwise)))) if otherwise else and_(*plain)


def having_field(field: str, value: object) -> ColumnElement[bool]:
    """Return the condition for one of the other three fields of :class:`NovaState`."""
    if field == "task_state" and value == "deleting":
        return and_(Server.desired == "deleted", Server.deleted_at.is_(None))
    states = [name for name, state in _STATES.items() if getattr(state, field) == value]
    alive = and_(Server.state.in_(states), Server.deleted_at.is_(None))
    if field == "task_state":
        idle = and_(alive, Server.task.is_(None))
        under_order = and_(Server.task == value, Server.deleted_at.is_(None))
        return and_(idle if value is None else or_(idle, under_order), Server.desired != "deleted")
    if field == "vm_state" and value == "deleted":
        return Server.deleted_at.is_not(None)
    return alive
