# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The control plane's RPC servers and scheduler as one part of a process."""

from __future__ import annotations

import socket
from typing import Any

from oslo_config import cfg

from accelsched import rpc
from accelsched.compute.controller import Controller
from accelsched.compute.images import Images
from accelsched.compute.silent_targets import SilentTargets
from accelsched.compute.snapshots import Discarder
from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet
from accelsched.scheduler.service import Scheduler


class ControlPlane:
    """Answers agents and places servers."""

    def __init__(self, conf: cfg.ConfigOpts, db: Database, fleet: Fleet, transport: Any) -> None:
        """Put it together; nothing runs before :meth:`start`.

        :raises accelsched.errors.ConfigurationError: when a plug-in does not load
        """
        name = socket.gethostname()
        agents = rpc.AgentClient(transport)
        self._scheduler = Scheduler(conf, db, fleet, agents)
        self._discarder = Discarder(db, Images(conf), conf.scheduler.poll_interval)
        self._silent_targets = SilentTargets(
            db,
            conf.scheduler.service_down_time,
            conf.scheduler.max_attempts,
            conf.scheduler.poll_interval,
            lambda: self._scheduler.place({}),
        )
        controller = Controller(
            db,
            conf.scheduler.max_attempts,
            lambda: self._scheduler.place({}),
            lambda agent, host: agents.sync(agent, [host]),
            evacuates=conf.scheduler.evacuate_on_failure,
        )
        self._servers = [
            rpc.serve(transport, rpc.CONTROLLER_TOPIC, name, controller),
            rpc.serve(transport, rpc.SCHEDULER_TOPIC, name, self._scheduler),
        ]
        self._running = False

    def start(self) -> None:
        """Start to listen and to place."""
        self._running = True
        self._scheduler.start()
        self._discarder.start()
        self._silent_targets.start()
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """Stop listening, then finish the request at hand."""
        if not self._running:
            return
        self._running = False
        for server in self._servers:
            server.stop()
            server.wait()
        self._silent_targets.stop()
        self._discarder.stop()
        self._scheduler.stop()
