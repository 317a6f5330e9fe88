# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Virtual environments that are built once and shared by everything on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from stack import files, progress
from stack.errors import StackError

HERE = Path(__file__).resolve().parent
SERVICES = ("glance", "gunicorn", "keystone")


def cache_dir() -> Path:
    """Return where what can be made anew is kept: ``$ACCELSCHED_CACHE``, else /var/cache/accelsched."""
    return Path(os.environ.get("ACCELSCHED_CACHE") or "/var/cache/accelsched")


def services_python(cache: Path | None = None, report: progress.Report = progress.say) -> Path:
    """Return the Python of an environment with Keystone, Glance and gunicorn, building it when it is not there.

    Its directory is named for the versions in it, so a change of constraints makes a new one and leaves those in use.

    :raises StackError: when a package cannot be installed
    """
    constraints = HERE / "constraints.txt"
    key = hashlib.sha256(f"{sys.version_info[:2]} {sys.base_prefix} {constraints.read_text()}".encode()).hexdigest()[
        :12
    ]
    home = files.directory((cache or cache_dir()) / "services")
    environment = home / key
    python = environment / "bin" / "python"
    complete = environment / "complete"
    log = home / f"{key}.log"
    with (home / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return python
        with progress.step("Keystone and Glance from PyPI", report):
            shutil.rmtree(environment, ignore_errors=True)
            with log.open("wb") as output:
                _run([sys.executable, "-m", "venv", str(environment)], output, log)
                install = ["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
                _run(
                    [str(python), "-m", "pip", *install, "--use-pep517", "-c", str(constraints), *SERVICES], output, log
                )
            complete.touch()
    return python


def _run(command: list[str], output: IO[bytes], log: Path) -> None:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        raise StackError("installing Keystone and Glance failed; is PyPI reachable? Run it again when it is", log)
