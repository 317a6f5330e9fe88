# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that outlives whoever started it, found again by a pid file that cannot name another's process.

The process itself holds its pid file open and locked: it writes its id after the fork and before the exec, and inherits
the lock. So there is no moment at which it runs and is not known, a dead process is never taken for a live one, and an
id that the kernel gave to somebody else is never signalled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack import files
from stack.errors import StackError

# Bash, because its $$ is the process that exec keeps and its redirections take descriptors above 9.
_LAUNCHER = 'echo "$$ $1" >&"$0"; shift; exec "$@"'


class Daemon:
    """One background process.

    :param name: its name: of its pid file and log
    :param state_dir: the pid file is below ``run/``, the log below ``log/``
    """

    def __init__(self, name: str, state_dir: Path) -> None:
        self.name = name
        self.pid_file = state_dir / "run" / f"{name}.pid"
        self.log = state_dir / "log" / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, configuration: str = ""
    ) -> bool:
        """Start the process unless it runs already with the same command, environment and configuration.

        :param environment: variables added to this process's
        :param configuration: whatever else a change of must restart it, such as the text of its configuration file
        :returns: whether it was started now
        """
        argv = [str(word) for word in command]
        wanted = hashlib.sha256(json.dumps([argv, dict(environment or {}), configuration]).encode()).hexdigest()
        if self.pid() is not None:
            if self._fingerprint() == wanted:
                return False
            self.stop()
        files.directory(self.pid_file.parent)
        files.directory(self.log.parent)
        descriptor = os.open(self.pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            with self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    ["/bin/bash", "-c", _LAUNCHER, str(descriptor), wanted, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **(environment or {})},
                    pass_fds=(descriptor,),
                    start_new_session=True,
                )
        finally:
            os.close(descriptor)
        return True

    def pid(self) -> int | None:
        """Return the process's id, or None when it does not run."""
        deadline = time.monotonic() + 5.0
        while self._is_locked():
            words = self.pid_file.read_text().split()
            if len(words) == 2 and _holds(int(words[0]), self.pid_file):
                return int(words[0])
            # Between its fork and its exec, or ending: a moment.
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return None

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``ready()``.

        :raises StackError: when the process ends first, or the time does
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.pid() is None:
                raise StackError(f"{self.name} ended while it was starting", self.log)
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} did not answer within {timeout_s:g} s", self.log)
            time.sleep(0.05)

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the process and what it started: by SIGTERM, after ``timeout_s`` by SIGKILL. Return whether it ran."""
        pid = self.pid()
        if pid is None:
            return False
        _signal(os.kill, pid, signal.SIGTERM)
        if not self._gone_within(timeout_s):
            _signal(os.killpg, pid, signal.SIGKILL)
            if not self._gone_within(10.0):
                raise StackError(f"{self.name} (process {pid}) does not end even on SIGKILL", self.log)
        return True

    def _gone_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        if self._child is not None:
            self._child.wait()
        return True

    def _lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + 2.0
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(f"{self.name}: somebody else is starting it; try again") from None
                time.sleep(0.02)

    def _is_locked(self) -> bool:
        try:
            descriptor = os.open(self.pid_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who ask at once do not take each other for the process.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _fingerprint(self) -> str:
        words = self.pid_file.read_text().split()
        return words[1] if len(words) == 2 else ""


def _holds(pid: int, path: Path) -> bool:
    """Return whether the process has the file open, which only the one that was started with it can."""
    try:
        wanted = path.stat()
        return any(
            (held.st_dev, held.st_ino) == (wanted.st_dev, wanted.st_ino)
            for held in (entry.stat() for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.exists())
        )
    except OSError:
        return False


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except ProcessLookupError:
        return
