# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Points at which a test can have a process killed or held, to see that what it left is finished or undone.

Off unless the environment names a directory, ``ACCELSCHED_FAIL_POINTS``. There, a file called like a point arms it: the
first process that reaches the point takes the file away, by renaming it to ``POINT.reached``, and does what it says. An
empty file: the process is gone as after ``kill -9``. So one process dies, once, and whoever started it may start it
again as it is. ``hold``: the thread waits until the renamed file is gone; something else can be broken meanwhile.
"""

from __future__ import annotations

import enum
import os
import signal
import time
from pathlib import Path

HOLD = "hold"
_DIRECTORY = os.environ.get("ACCELSCHED_FAIL_POINTS")
_LOOK_S = 0.02


class Point(enum.StrEnum):
    """Where a process can be stopped; ``written`` is in a transaction that is not committed yet."""

    API_SERVERS_WRITTEN = "api.servers.written"
    API_SERVERS_COMMITTED = "api.servers.committed"
    API_ACTION_WRITTEN = "api.action.written"
    API_ACTION_COMMITTED = "api.action.committed"
    API_DELETION_COMMITTED = "api.deletion.committed"
    SCHEDULER_REQUEST_LEASED = "scheduler.request.leased"
    SCHEDULER_DECIDED = "scheduler.decided"
    SCHEDULER_CLAIM_WRITTEN = "scheduler.claim.written"
    SCHEDULER_CLAIM_COMMITTED = "scheduler.claim.committed"
    CONTROLLER_OBSERVATION_WRITTEN = "controller.observation.written"
    CONTROLLER_OBSERVATION_COMMITTED = "controller.observation.committed"
    AGENT_FILES_FETCHED = "agent.files.fetched"
    AGENT_LANDING_PREPARED = "agent.landing.prepared"
    AGENT_PLUG_PREPARED = "agent.plug.prepared"
    AGENT_PLUG_ATTACHED = "agent.plug.attached"
    AGENT_PLUG_DETACHED = "agent.plug.detached"
    AGENT_PLUG_RELEASED = "agent.plug.released"
    AGENT_PLUG_FORGOTTEN = "agent.plug.forgotten"
    AGENT_DEVICES_PUT_AWAY = "agent.devices.put_away"
    AGENT_DOMAIN_STARTED = "agent.domain.started"
    AGENT_MDEV_DEFINED = "agent.mdev.defined"
    AGENT_DEVICES_PREPARED = "agent.devices.prepared"
    AGENT_SERVER_BUILT = "agent.server.built"
    AGENT_ORDER_CARRIED_OUT = "agent.order.carried_out"
    AGENT_ORDER_NOTED = "agent.order.noted"
    AGENT_SERVER_DESTROYED = "agent.server.destroyed"
    AGENT_SERVER_REMOVED = "agent.server.removed"


def reach(point: Point) -> None:
    """Die or wait here if a test wants that."""
    if _DIRECTORY is None:
        return
    reached = Path(_DIRECTORY, f"{point}.reached")
    try:
        Path(_DIRECTORY, point).rename(reached)
    except FileNotFoundError:
        return
    if reached.read_text() != HOLD:
        os.kill(os.getpid(), signal.SIGKILL)
    while reached.exists():
        time.sleep(_LOOK_S)
