# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is done with devices, on record in small files that outlive the agent and the host's next boot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsched.agent import files
from accelsched.agent.devices import sysfs


class Journal:
    """A directory of records, one file each, by the name of what they are about."""

    def __init__(self, directory: Path) -> None:
        """
        :param directory: made with the first record
        """
        self._directory = directory

    def names(self) -> list[str]:
        """Return what there are records of, damaged ones too."""
        return [path.name for path in sysfs.entries(self._directory) if not path.name.startswith(".")]

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the records by name, without those that are damaged."""
        records = {name: self.get(name) for name in self.names()}
        return {name: record for name, record in records.items() if record is not None}

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a record; None when there is none, or it is damaged."""
        try:
            record = json.loads((self._directory / name).read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a record in place of what there was; it is on disk when this returns."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomically(self._directory / name, json.dumps(record).encode(), mode=0o600)

    def remove(self, name: str) -> None:
        """Remove a record, if there is one."""
        (self._directory / name).unlink(missing_ok=True)
