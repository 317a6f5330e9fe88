# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Threads that look after something again and again, as long as their process runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Periodic(ABC):
    """A thread that looks, waits, and looks again; a look that fails does not end it.

    :param name: of the thread
    :param interval_s: between two looks, and before the first
    """

    def __init__(self, name: str, interval_s: float) -> None:
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start to look."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is at hand, then return."""
        self._stopping.set()
        self._thread.join()

    @abstractmethod
    def look(self) -> None:
        """Look once."""

    @abstractmethod
    def failed(self, exc: Exception) -> None:
        """Say that a look failed."""

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self.look()
            except Exception as exc:  # the database, or whom it asks, may be away for a while
                self.failed(exc)
