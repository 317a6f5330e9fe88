# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Results of build steps, kept outside the checkout and found again by what they were made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stack import progress

# A result that no build has asked for in this time is removed.
_UNUSED_S = 14 * 24 * 3600.0


def root() -> Path:
    """Return the lab's folder in the cache, made when it is not there."""
    path = Path(os.environ.get("ACCELSCHED_CACHE") or "/var/cache/accelsched") / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def digest(files: Sequence[Path]) -> str:
    """Return one digest of the contents of some files."""
    total = hashlib.sha256()
    for path in files:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock by name among all processes that share the cache; wait for it as long as it takes."""
    with (root() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def report(line: str) -> None:
    """Print a line of progress, on standard error: standard output is the commands' own."""
    print(f"lab: {line}", file=sys.stderr, flush=True)


def step(name: str, inputs: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Return the folder with a step's results, made now unless the same inputs made it before.

    A step that is killed half-way leaves nothing behind that counts: results appear by one rename.

    :param inputs: everything the results depend on: versions, digests of files, names of earlier results
    :param make: writes the results into the empty folder it is given
    """
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
    target = root() / f"{name}-{key}"
    if not target.is_dir():
        with (
            progress.step(name, report),
            tempfile.TemporaryDirectory(prefix=f"{name}-", suffix=".part", dir=root()) as scratch,
        ):
            result = Path(scratch, "result")
            result.mkdir()
            make(result)
            result.rename(target)
    os.utime(target)
    _forget_unused(name, target)
    return target


def _forget_unused(name: str, keep: Path) -> None:
    for other in root().glob(f"{name}-*"):
        if other != keep and other.is_dir() and time.time() - other.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)
