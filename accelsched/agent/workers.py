# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A bounded pool of threads in which no two actions touch the same server of the same host at once."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from accelsched.agent.plan import Work

Key = tuple[str, str]  # host, server uuid


@dataclass
class _Task:
    builds: bool
    cancelled: threading.Event = field(default_factory=threading.Event)
    future: Future[None] | None = None


class Workers:
    """Runs actions; the caller learns which servers are being worked on and leaves those alone."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._tasks: defaultdict[str, dict[str, _Task]] = defaultdict(dict)  # by host, by server uuid
        self._stopped = False

    def work(self, host: str) -> dict[str, Work]:
        """Return what is being done, or waits for a thread, on a host, by server uuid."""
        with self._lock:
            return {server: Work(task.builds) for server, task in self._tasks.get(host, {}).items()}

    def submit(
        self,
        key: Key,
        action: Callable[[threading.Event], None],
        *,
        builds: bool,
        done: Callable[[bool], None],
    ) -> bool:
        """Run ``action(cancelled)`` in a thread unless the server is being worked on.

        :param done: called in the end, when the server is free again, with whether the action had been cancelled
        :returns: whether the action was accepted
        """
        host, server = key
        task = _Task(builds)

        def run() -> None:
            try:
                action(task.cancelled)
            finally:
                with self._lock:
                    del self._tasks[host][server]
                done(task.cancelled.is_set())

        with self._lock:
            if self._stopped or server in self._tasks[host]:
                return False
            self._tasks[host][server] = task
            task.future = self._pool.submit(run)
        return True

    def cancel(self, key: Key) -> None:
        """Tell the action on a server, if any, to stop at its next step."""
        host, server = key
        with self._lock:
            task = self._tasks[host].get(server)
            if task is not None:
                task.cancelled.set()

    def stop(self, timeout: float) -> bool:
        """Take no more actions, interrupt builds, and wait for what runs.

        :param timeout: seconds to wait at most
        :returns: whether everything came to an end
        """
        with self._lock:
            self._stopped = True
            tasks = [task for of_host in self._tasks.values() for task in of_host.values()]
            for task in tasks:
                task.cancelled.set()
            futures = [task.future for task in tasks if task.future is not None]
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not wait(futures, timeout=timeout).not_done
