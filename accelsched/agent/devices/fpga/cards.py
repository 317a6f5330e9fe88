# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the driver of FPGA regions needs of a maker's cards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Region:
    """One partially reconfigurable region of a card, and the PCI function through which a server reaches it."""

    address: str  # of the function that is handed out
    management: str  # of the function through which it is programmed; may be the same one
    product: str  # PCI product id of the card, four hexadecimal digits
    interface_id: str  # what a bitstream is made for: a uuid
    function_id: str | None  # what is in the region: a uuid; None: nothing, or it cannot be seen
    numa_node: int | None


@dataclass(frozen=True)
class Label:
    """What a bitstream's own header says of it."""

    interface_id: str | None
    function_id: str | None


class Cards(ABC):
    """The cards of one maker."""

    vendor: ClassVar[str]  # in names of traits
    vendor_id: ClassVar[str]  # PCI's

    @abstractmethod
    def regions(self) -> list[Region]:
        """Return the regions that can be seen now; what is wrong with one card never hides the others."""

    @abstractmethod
    def program(self, region: Region, bitstream: Path, lock: Path) -> None:
        """Program a region, and return only when its maker's executable says that it worked.

        :param lock: a file of the region's; held until the executable ends, even if this process is killed
        :raises accelsched.agent.devices.base.DeviceError: when it did not work, or not in time
        """

    @abstractmethod
    def function_of(self, region: Region) -> str | None:
        """Return what is in a region at this moment; None: nothing, or it cannot be seen."""

    @staticmethod
    @abstractmethod
    def label(bitstream: Path) -> Label:
        """Return what the header of a bitstream says; nothing when it has none."""
