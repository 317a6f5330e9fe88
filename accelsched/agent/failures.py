# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Builds that failed, remembered until something else is wanted, across restarts of the agent too.

Without the memory a restart would build again what its owner was told has failed.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Collection
from pathlib import Path

from accelsched.agent import files
from accelsched.agent.plan import Failure


class Failures:
    """The failures of one host, by server uuid; a file each."""

    def __init__(self, directory: Path | None) -> None:
        """
        :param directory: where they are kept; None to keep them in memory only
        """
        self._directory = directory
        self._lock = threading.Lock()
        self._failures: dict[str, Failure] = {}
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._failures = dict(filter(None, map(_read, sorted(directory.iterdir()))))

    def all(self) -> dict[str, Failure]:
        """Return every failure by server uuid."""
        with self._lock:
            return dict(self._failures)

    def record(self, server_uuid: str, failure: Failure) -> None:
        """Remember that a build failed."""
        if self._directory is not None:
            text = json.dumps({"fingerprint": failure.fingerprint, "fault": failure.fault})
            files.write_atomically(self._directory / server_uuid, text.encode(), mode=0o600)
        with self._lock:
            self._failures[server_uuid] = failure

    def keep(self, wanted: Collection[str]) -> None:
        """Forget the failures of all servers but these."""
        with self._lock:
            forgotten = self._failures.keys() - set(wanted)
            for server_uuid in forgotten:
                del self._failures[server_uuid]
        if self._directory is not None:
            for server_uuid in forgotten:
                (self._directory / server_uuid).unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, Failure] | None:
    """Return what a file remembers; nothing when it is damaged, then the build is tried once more."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_bytes())
        fault = record["fault"]
        return path.name, Failure(
            str(record["fingerprint"]), {"message": str(fault["message"]), "details": str(fault["details"])}
        )
    return None
