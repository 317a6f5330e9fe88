# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Running the executables of FPGAs' makers: no shell, nothing to read from, and an end in any case."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from accelsched import errors
from accelsched.agent.devices.base import DeviceError

_LOOK_AGAIN_S = 0.2
_KEPT = 4000  # characters of what it said last, for the operator


def run(
    executable: Path,
    arguments: Sequence[str],
    timeout_s: float,
    *,
    lock: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run an executable to its end.

    :param timeout_s: seconds after which it is killed with all that it started, the wait for the lock among them
    :param lock: a file that it holds locked while it runs: who was started by an agent that is gone is waited for
    :param environment: what it is told besides this process's environment
    :raises DeviceError: when it is not there, fails, or takes too long; its cause says what it printed
    """
    deadline = time.monotonic() + timeout_s
    with _locked(lock, deadline, executable.name) as descriptor:
        try:
            process = subprocess.Popen(
                [str(executable), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", **(environment or {})},
                start_new_session=True,
                pass_fds=(descriptor,),
            )
        except OSError as exc:
            raise DeviceError(f"{executable} cannot be run on this host: {exc.strerror}") from exc
        with process:
            try:
                said, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.0))
            except BaseException as exc:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise DeviceError(f"{executable.name} was not done after {timeout_s:g} s") from exc
                raise
    if process.returncode != 0:
        text = said.decode("utf-8", errors="replace").strip()[-_KEPT:]
        raise DeviceError(f"{executable.name} failed with exit status {process.returncode}") from (
            errors.AccelschedError(text)
        )


@contextlib.contextmanager
def _locked(path: Path, deadline: float, name: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise DeviceError(f"an earlier {name} has not ended yet") from exc
                time.sleep(_LOOK_AGAIN_S)
        yield descriptor
    finally:
        os.close(descriptor)
