# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Running the operator's command that cleans a device between two servers."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

_OUTPUT_MAX = 4000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Cleaning:
    """How a cleaning went."""

    command: str
    status: int | None  # of its exit; None: it could not be started, or took too long
    output: str  # the end of what it said
    seconds: float

    @property
    def failure(self) -> str | None:
        """What went wrong, in one line; None when nothing did."""
        if self.status == 0:
            return None
        said = " ".join(self.output.split())[-200:]
        how = "did not end" if self.status is None else f"ended with status {self.status}"
        return f"{self.command} {how}: {said}" if said else f"{self.command} {how}"


def run(command: str, addresses: Sequence[str], timeout_s: float) -> Cleaning:
    """Run a command with addresses of PCI functions as arguments and wait for it; what it started ends with it.

    :param command: with arguments of its own, quoted as for a shell
    """
    arguments = [*shlex.split(command), *addresses]
    started = time.monotonic()
    status: int | None = None
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": _PATH, "LANG": "C.UTF-8"},  # nothing of what the agent was told
            start_new_session=True,
        )
    except OSError as exc:
        output = str(exc)
    else:
        try:
            told, _ = process.communicate(timeout=timeout_s)
            status = process.returncode
            output = told.decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
            output = told.decode("utf-8", "replace") + f"\nkilled after {timeout_s:g} s"
    return Cleaning(shlex.join(arguments), status, output[-_OUTPUT_MAX:], round(time.monotonic() - started, 1))
