# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a host knows of FPGA regions that a server has or had: a file each, written before the region is touched.

A region that a server has cannot be seen in sysfs, and what is in one that an agent was killed over is not known; the
record says both, and whose the region is. A region without a record is nobody's, and clean as far as it can be.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from accelsched.agent import files
from accelsched.agent.devices.fpga.cards import Region

# taken: as it was found; programming: nobody knows what is in it; programmed; dirty: to be scrubbed, nobody's
State = Literal["taken", "programming", "programmed", "dirty"]


@dataclass(frozen=True)
class Record:
    """One region that is not as it was found."""

    provider: str
    region: Region
    state: State
    server_uuid: str | None  # None: it waits to be scrubbed
    wanted: str | None = None  # bitstream_id=UUID or function_id=UUID
    job_uuid: str | None = None


class Records:
    """The records of one driver, one file a provider."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def all(self) -> list[Record]:
        """Return every record; one that cannot be read is left out, and its region is as if it had none."""
        return [record for record in map(_read, sorted(self._directory.glob("*.json"))) if record is not None]

    def get(self, provider: str) -> Record | None:
        """Return the record of a region; None when it has none."""
        return _read(self._path(provider, "json"))

    def put(self, record: Record) -> None:
        """Write a record in the place of the region's last one."""
        text = json.dumps(dataclasses.asdict(record))
        files.write_atomically(self._path(record.provider, "json"), text.encode(), mode=0o600)

    def remove(self, provider: str) -> None:
        """Forget a region, and the bitstream that an agent which was killed may have left of it."""
        self.bitstream(provider).unlink(missing_ok=True)
        self._path(provider, "json").unlink(missing_ok=True)

    def bitstream(self, provider: str) -> Path:
        """Return where a region's bitstream is while it is programmed."""
        return self._path(provider, "bitstream")

    def lock(self, provider: str) -> Path:
        """Return the file that whoever programs the region holds locked."""
        return self._path(provider, "lock")

    def _path(self, provider: str, suffix: str) -> Path:
        if "/" in provider or provider.startswith("."):
            raise ValueError(f"{provider!r} is not the name of a region's provider")
        return self._directory / f"{provider}.{suffix}"


def _read(path: Path) -> Record | None:
    try:
        fields = json.loads(path.read_bytes())
        return Record(**{**fields, "region": Region(**fields["region"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
