# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The control plane as an agent sees it, in memory: says what is wanted, remembers what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import patience

from accelsched import errors, rpc, wire


class FakeController:
    """Answers topic ``accelsched-controller``; ``answers`` switches it off and on."""

    target = rpc.endpoint_target()

    def __init__(self) -> None:
        self.answers = True
        self.reports: dict[str, wire.HostReport] = {}
        self.beats: list[list[str]] = []
        self.fetches = 0
        self.observations: list[wire.Observation] = []
        self._assignments: dict[tuple[str, str], wire.Assignment] = {}
        self._changed = threading.Condition()

    # --- RPC ----------------------------------------------------------------------------------------------------

    def report_host(self, ctxt: object, report: wire.HostReport, control_plane: str | None) -> str:
        self._answer()
        with self._changed:
            known = self.reports.get(report["host"])
            if known is not None and known["node_uuid"] != report["node_uuid"]:
                raise errors.ConflictError(f"host {report['host']} is another node")
            self.reports[report["host"]] = report
            self._changed.notify_all()
        return "2f1d8c6a-3c3e-4f0b-9a55-0a3c5f0f8a11"

    def heartbeat(self, ctxt: object, hosts: list[str]) -> list[str]:
        self._answer()
        with self._changed:
            self.beats.append(hosts)
            self._changed.notify_all()
            return [host for host in hosts if host not in self.reports]

    def fetch_assignments(self, ctxt: object, hosts: list[str], control_plane: str | None) -> list[wire.Assignment]:
        self._answer()
        with self._changed:
            self.fetches += 1
            self._changed.notify_all()
            return [assignment for (host, _), assignment in self._assignments.items() if host in hosts]

    def report_observations(self, ctxt: object, observations: list[wire.Observation]) -> None:
        self._answer()
        with self._changed:
            for observation in observations:
                self.observations.append(observation)
                key = (observation["host"], observation["server_uuid"])
                wanted = self._assignments.get(key)
                if observation["state"] == "gone" and wanted is not None and wanted["desired"] == "deleted":
                    del self._assignments[key]
            self._changed.notify_all()

    def _answer(self) -> None:
        if not self.answers:
            raise RuntimeError("the fake controller was switched off")

    # --- for tests ----------------------------------------------------------------------------------------------

    def assign(self, assignment: wire.Assignment) -> None:
        with self._changed:
            self._assignments[(assignment["host"], assignment["server_uuid"])] = assignment

    def unassign(self, host: str, server_uuid: str) -> None:
        with self._changed:
            del self._assignments[(host, server_uuid)]

    def assigned(self, host: str, server_uuid: str) -> bool:
        with self._changed:
            return (host, server_uuid) in self._assignments

    def states(self, server_uuid: str) -> list[str]:
        """Return the states of a server as they were reported, without repetitions."""
        with self._changed:
            states: list[str] = []
            for observation in self.observations:
                if observation["server_uuid"] == server_uuid and states[-1:] != [observation["state"]]:
                    states.append(observation["state"])
            return states

    def obeyed(self, server_uuid: str, number: int) -> list[tuple[str, wire.Fault | None]]:
        """Return what a server was last seen to be after an order, and why it did not obey if it did not."""
        with self._changed:
            seen = [
                (observation["state"], observation.get("order_fault"))
                for observation in self.observations
                if observation["server_uuid"] == server_uuid and observation.get("order") == number
            ]
            return seen[-1:]

    def wait_for(self, what: Callable[[], object], timeout: float = patience.LIMIT_S) -> None:
        """Wait until something holds; it is looked at whenever an agent says something, and twice a second."""
        deadline = time.monotonic() + timeout
        while not what():
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {timeout} s; observations: {self.observations[-5:]}")
            with self._changed:
                self._changed.wait(min(left, 0.5))
