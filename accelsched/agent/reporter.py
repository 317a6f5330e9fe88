# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tells the control plane how servers are: the latest of each, once, until it has been heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from oslo_log import log

from accelsched import wire
from accelsched.agent.link import Backoff, Link
from accelsched.agent.workers import Key

LOG = log.getLogger(__name__)

# An unchanged observation is repeated this often, so that a control plane restored from a backup learns it again.
_REPEAT_S = 600.0
_BATCH = 500


class Reporter:
    """A thread that sends observations; a newer one of the same server replaces one that was not sent yet."""

    def __init__(self, send: Callable[[list[wire.Observation]], None], link: Link) -> None:
        self._send = send
        self._link = link
        self._condition = threading.Condition()
        self._pending: dict[Key, wire.Observation] = {}
        self._sending: dict[Key, wire.Observation] = {}
        self._heard: dict[Key, tuple[wire.Observation, float]] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="agent-reporter", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Try once more to send what is left, then end."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def observe(self, observation: wire.Observation) -> None:
        """Have an observation sent, unless it is what was said last. ``gone`` is repeated whenever it is observed:
        the assignment is there as long as it was not heard."""
        key = (observation["host"], observation["server_uuid"])
        with self._condition:
            said = self._sending.get(key)
            if said is None and key in self._heard:
                heard, when = self._heard[key]
                said = heard if time.monotonic() - when < _REPEAT_S else None
            if said == observation and observation["state"] != "gone":
                self._pending.pop(key, None)
                return
            self._pending[key] = observation
            self._condition.notify_all()

    def forget(self, host: str, servers: Collection[str] | None = None) -> None:
        """Forget what was said of a host's servers, except of ``servers``."""
        kept = set(servers or ())
        with self._condition:
            for key in [key for key in self._heard if key[0] == host and key[1] not in kept]:
                del self._heard[key]

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            with self._condition:
                while not self._pending and not self._stopping:
                    self._condition.wait()
                batch = dict(list(self._pending.items())[:_BATCH])
                for key in batch:
                    del self._pending[key]
                self._sending = batch
                last = self._stopping
            if not batch:
                return
            try:
                said = self._link.said()
                self._send([{**observation, "said": said} for observation in batch.values()])
            except Exception as exc:  # whatever it is, it is said again
                self._link.failed("report_observations", exc)
                with self._condition:
                    self._sending = {}
                    self._pending = {**batch, **self._pending}
                    if last:
                        return
                    self._condition.wait(backoff.next())
            else:
                self._link.succeeded("report_observations")
                backoff.reset()
                now = time.monotonic()
                with self._condition:
                    self._sending = {}
                    self._heard |= {key: (observation, now) for key, observation in batch.items()}
