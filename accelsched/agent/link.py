# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The agent's end of the line to the control plane: retried for ever, and silent about it after the first word."""

from __future__ import annotations

import itertools
import random
import threading
import uuid

from oslo_log import log

from accelsched import wire

LOG = log.getLogger(__name__)

_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 30.0


class Link:
    """Which calls do not get through, shared by all threads that make them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._broken: set[str] = set()
        self._run = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    def said(self) -> wire.Said:
        """Return what tells the next thing that is said from all before it."""
        return {"run": self._run, "number": next(self._numbers)}

    def failed(self, what: str, error: Exception) -> None:
        """Remember that a call failed; log it when it is news."""
        with self._lock:
            news = what not in self._broken
            self._broken.add(what)
        if news:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            LOG.warning("The control plane does not answer %s (%s); trying for as long as it takes", what, reason)

    def succeeded(self, what: str) -> None:
        """Remember that a call got through; log it when it is news."""
        with self._lock:
            news = what in self._broken
            self._broken.discard(what)
        if news:
            LOG.info("The control plane answers %s again", what)


class Backoff:
    """Growing, jittered delays of one thread's retries."""

    def __init__(self) -> None:
        self._delay_s = _FIRST_DELAY_S

    def reset(self) -> None:
        """Start from the shortest delay again."""
        self._delay_s = _FIRST_DELAY_S

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        delay = self._delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        self._delay_s = min(self._delay_s * 2, _LONGEST_DELAY_S)
        return delay
