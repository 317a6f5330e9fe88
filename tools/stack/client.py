# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The unmodified ``openstack`` client, as a user runs it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stack import progress
from stack.errors import StackError


class OpenStackClient:
    """Runs ``openstack --os-cloud CLOUD ...`` and shows the commands it runs.

    :param clouds_yaml: the file that knows the cloud
    :param cloud: its name there
    :param report: where the command lines go
    """

    def __init__(self, clouds_yaml: Path, cloud: str = "accelsched", report: progress.Report = progress.say) -> None:
        # Beside the interpreter that runs this: the project's virtual environment.
        self._program = Path(sys.executable).parent / "openstack"
        self._cloud = cloud
        self._report = report
        # What else is in the environment must not lead it elsewhere.
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        self._environment["OS_CLIENT_CONFIG_FILE"] = str(clouds_yaml)

    def run(self, *arguments: str, show: bool = False, timeout_s: float = 120.0) -> str:
        """Return what the command prints.

        :param show: report the command line
        :raises StackError: with what it said, when it fails or takes too long
        """
        line = self._line(arguments)
        if show:
            self._report(f"$ {line}")
        try:
            done = subprocess.run(
                [self._program, "--os-cloud", self._cloud, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StackError(f"no end after {timeout_s:g} s: {line}") from None
        if done.returncode != 0:
            raise StackError(f"{line}\n  {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def transcript(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Return the command line and what it prints, as a terminal would show them."""
        return f"$ {self._line(arguments)}\n{self.run(*arguments, timeout_s=timeout_s).rstrip()}"

    def _line(self, arguments: Sequence[str]) -> str:
        return shlex.join(["openstack", "--os-cloud", self._cloud, *arguments])
