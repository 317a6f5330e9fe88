# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The unmodified ``openstack`` client: a process for each command, forked from one that has its imports done.

They take a second of processor time, most of what a command costs.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import patience

_processes = multiprocessing.get_context("forkserver")
# It looks at every command there is whichever it is to run.
_entry_points = (entry for each in importlib.metadata.distributions() for entry in each.entry_points)
_commands = {entry.module for entry in _entry_points if entry.group.startswith("openstack.")}
_processes.set_forkserver_preload(["openstackclient.shell", "openstack.connection", *sorted(_commands)])


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and what it said."""

    status: int | None
    out: str
    err: str


def run(clouds_yaml: Path, *arguments: str) -> Ended:
    """Run ``openstack ARGUMENTS`` with the clouds of this file and nothing else of OpenStack's in the environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    environment |= {"OS_CLIENT_CONFIG_FILE": str(clouds_yaml), "HOME": str(clouds_yaml.parent)}
    with tempfile.TemporaryDirectory() as directory:
        said = [Path(directory) / name for name in ("out", "err")]
        process = _processes.Process(target=_command, args=(arguments, environment, clouds_yaml.parent, said))
        process.start()
        process.join(patience.LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
        return Ended(process.exitcode, *(path.read_text() if path.exists() else "" for path in said))


def _command(arguments: Sequence[str], environment: Mapping[str, str], where: Path, said: Sequence[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(where)
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.argv = ["openstack", *arguments]
    # Imported here: the processes of the tests are spared it.
    from openstackclient import shell

    sys.exit(shell.main())
