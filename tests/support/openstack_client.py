# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The unmodified ``openstack`` client: a process for each command."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import tempfile
from pathlib import Path

import forked
import patience


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
        out, err = (Path(directory) / name for name in ("out", "err"))
        process = forked.Forked(
            forked.command,
            ("openstack", *arguments),
            environment=environment,
            where=clouds_yaml.parent,
            out=out,
            err=err,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience.LIMIT_S)
        status = process.poll()
        if status is None:
            process.kill()
            process.wait()
        return Ended(process.poll(), *(path.read_text() if path.exists() else "" for path in (out, err)))
