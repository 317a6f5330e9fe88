# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who has which PCI functions, and what is to be done with them before anybody else may: a journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oslo_utils import timeutils

from accelsched import errors, wire
from accelsched.agent.devices.cleaning import Cleaning
from accelsched.agent.devices.journal import Journal


@dataclass(frozen=True)
class Tenure:
    """Who has a unit, or had it last."""

    server_uuid: str
    provider_uuid: str
    resource_class: str
    group: str
    index: int  # of the units of that class in that group
    addresses: list[str]
    one_time_use: bool
    used: bool = False  # the server is gone, and the unit not clean yet
    failure: str | None = None  # why it could not be cleaned

    def serves(self, server_uuid: str, allocation: wire.DeviceAllocation) -> bool:
        """Tell whether the unit is part of what a server was given there."""
        return (self.server_uuid, self.provider_uuid, self.group) == (
            server_uuid,
            allocation["provider_uuid"],
            allocation["group"],
        )


class Tenures:
    """The journal of units, by the address of the main function."""

    def __init__(self, state_path: Path) -> None:
        self._journal = Journal(state_path / "pci")
        self._cleanings = Journal(state_path / "cleanings")

    def names(self) -> list[str]:
        """Return what there are records of, damaged ones too."""
        return self._journal.names()

    def all(self) -> dict[str, Tenure]:
        """Return the records that can be read."""
        read = {address: _read(record) for address, record in self._journal.all().items()}
        return {address: tenure for address, tenure in read.items() if tenure is not None}

    def put(self, address: str, tenure: Tenure) -> None:
        """Write a record; it is on disk when this returns."""
        self._journal.put(address, asdict(tenure))

    def remove(self, address: str) -> None:
        """Remove a record."""
        self._journal.remove(address)

    def clean_again(self, address: str) -> None:
        """Have a unit cleaned that could not be cleaned before: by the agent, when it looks next.

        :raises accelsched.errors.NotFoundError: nothing waits to be cleaned there
        """
        self.put(address, replace(self._used(address), failure=None))

    def is_clean(self, address: str) -> None:
        """Take the operator's word that a unit was cleaned.

        :raises accelsched.errors.NotFoundError: nothing waits to be cleaned there
        """
        self._used(address)
        self.remove(address)

    def _used(self, address: str) -> Tenure:
        tenure = self.all().get(address)
        if tenure is None or not tenure.used:
            waiting = ", ".join(sorted(name for name, tenure in self.all().items() if tenure.used)) or "nothing"
            raise errors.NotFoundError(f"{address} does not wait to be cleaned; {waiting} does")
        return tenure

    def keep_cleaning(self, address: str, done: Cleaning) -> None:
        """Keep how the last cleaning of a unit went."""
        self._cleanings.put(address, {**asdict(done), "ended_at": timeutils.utcnow().isoformat(timespec="seconds")})

    def cleanings(self) -> Mapping[str, Mapping[str, Any]]:
        """Return how the last cleaning of each unit went."""
        return self._cleanings.all()


def _read(record: Mapping[str, Any]) -> Tenure | None:
    try:
        return Tenure(**record)
    except TypeError:
        return None
