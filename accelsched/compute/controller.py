# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The control plane's side of the conversation with agents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tenacity
from oslo_db import exception as db_exception
from oslo_log import log
from sqlalchemy.orm import Session

from accelsched import rpc, wire
from accelsched.compute import assignments, devices, hosts
from accelsched.compute.heartbeats import Heartbeats
from accelsched.db.engine import Database
from accelsched.failpoints import Point, reach

LOG = log.getLogger(__name__)


class Controller:
    """RPC endpoint of topic ``accelsched-controller``. Every method may be repeated."""

    target = rpc.endpoint_target()

    def __init__(
        self,
        db: Database,
        max_attempts: int,
        place: Callable[[], None],
        sync: Callable[[str, str], None],
        *,
        evacuates: bool = False,
    ) -> None:
        """
        :param max_attempts: hosts on which a server's first build, or a live migration, is tried
        :param place: called when there may be servers to place
        :param sync: called with an agent and its host when something else is wanted there
        :param evacuates: servers leave hosts that are forced down
        """
        self._db = db
        self._heartbeats = Heartbeats(db)
        self._max_attempts = max_attempts
        self._place = place
        self._evacuates = evacuates
        self._tell = sync

    # Two agents that report a new custom class at the same moment: the second finds it there when it tries again.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(db_exception.DBDuplicateEntry),
        stop=tenacity.stop_after_attempt(5),
        wait=tenacity.wait_random(max=0.2),
        reraise=True,
    )
    def report_host(self, _context: dict[str, Any], report: wire.HostReport, control_plane: str | None = None) -> str:
        """Take over what a host says of itself; return which control plane this is."""
        return self._db.transact(lambda session: hosts.report(session, report, control_plane))

    def heartbeat(self, _context: dict[str, Any], hosts: Sequence[str]) -> list[str]:
        """Note that hosts are alive; return those that are not known."""
        return self._heartbeats.note(hosts)

    def fetch_assignments(
        self, _context: dict[str, Any], hosts: Sequence[str], control_plane: str | None = None
    ) -> list[wire.Assignment]:
        """Return what is wanted on these hosts."""
        with self._db.snapshot() as session:
            _check_control_plane(session, control_plane)
            return assignments.of_hosts(session, hosts)

    def report_observations(self, _context: dict[str, Any], observations: Sequence[wire.Observation]) -> None:
        """Take over what agents saw of servers."""
        for observation in observations:
            outcome = self._db.transact(functools.partial(self._observe, seen=observation))
            reach(Point.CONTROLLER_OBSERVATION_COMMITTED)
            match outcome:
                case "gone":
                    LOG.info("Server %s is gone from %s", observation["server_uuid"], observation["host"])
                case "unplaced":
                    LOG.warning(
                        "Server %s could not be built on %s and goes elsewhere: %s",
                        observation["server_uuid"],
                        observation["host"],
                        _why(observation),
                    )
                    self._place()
                case "offloaded":
                    self._sync(observation["host"])
                case assignments.Moved(hosts_, unplaced):
                    if unplaced:
                        LOG.warning(
                            "Server %s cannot go to the host that was chosen, and another one is looked for: %s",
                            observation["server_uuid"],
                            _why(observation),
                        )
                        self._place()
                    for host in hosts_:
                        self._sync(host)
        self._end_shortfalls({observation["host"] for observation in observations})

    def _end_shortfalls(self, hosts_: Collection[str]) -> None:
        """Look again at devices that had less than was in use of them: a server may have left one just now."""
        with self._db.reading() as session:
            faulty = devices.with_faults(session, hosts_)
        for name in faulty:
            self._db.transact(functools.partial(devices.end_shortfalls, name=name))

    def _sync(self, host: str) -> None:
        """Have the agent of a host look at what is wanted there; it does so by itself, only later."""
        with self._db.reading() as session:
            agent = _agent_of(session, host)
        try:
            if agent is not None:
                self._tell(agent, host)
        except rpc.MESSAGING_ERRORS as exc:
            LOG.warning("The agent of host %s could not be told: %s", host, exc)

    def _observe(self, session: Session, seen: wire.Observation) -> assignments.Outcome:
        outcome = assignments.observe(session, seen, self._max_attempts, evacuates=self._evacuates)
        reach(Point.CONTROLLER_OBSERVATION_WRITTEN)
        return outcome


def _why(observation: wire.Observation) -> str:
    fault = observation["fault"] or observation.get("order_fault")
    return fault["message"] if fault else "no reason was given"


# An RPC argument has the module's name.
_agent_of = hosts.agent_of
_check_control_plane = hosts.check_control_plane
