# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the driver of FPGA regions needs of a maker's cards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from oslo_config import cfg
from oslo_log import log

from accelsched import errors
from accelsched.agent.devices.base import DeviceError, Refusal
from accelsched.agent.devices.watch import REFUSAL, Watch

LOG = log.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """One partially reconfigurable region of a card, and the PCI function through which a server reaches it."""

    address: str  # of the function that is handed out
    management: str  # of the function through which it is programmed; may be the same one
    product: str  # PCI product id of the card, four hexadecimal digits
    interface_id: str  # what a bitstream is made for: a uuid
    function_id: str | None  # what is in the region: a uuid; None: nothing, or it cannot be seen
    numa_node: int | None
    pcie_root: str | None = None  # the host bridge that it is below


@dataclass(frozen=True)
class Label:
    """What a bitstream's own header says of it."""

    interface_id: str | None
    function_id: str | None


class Cards(ABC):
    """The cards of one maker."""

    vendor: ClassVar[str]  # in names of traits
    vendor_id: ClassVar[str]  # PCI's

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._watch = Watch(conf.devices.look_timeout)
        self._refused: dict[str, Refusal] = {}  # by management function; the reason was logged

    @abstractmethod
    def looks(self) -> Mapping[str, Callable[[], Region]]:
        """Return what looks at each card, by the address of its management function.

        A look raises :class:`accelsched.agent.devices.base.DeviceError` when the card has no region to offer.
        """

    def regions(self) -> list[Region]:
        """Return the regions that can be seen now; what is wrong with one card never hides the others."""
        looks = {address: partial(self._look_at, address, look) for address, look in self.looks().items()}
        return [region for region in self._watch.each(looks).values() if region is not None]

    def _look_at(self, address: str, look: Callable[[], Region]) -> Region | None:
        try:
            region = look()
        except DeviceError as exc:
            if self._refused.get(address) != Refusal.of(exc):
                self._refused[address] = Refusal.of(exc)
                LOG.warning("FPGA card %s is not offered: %s", address, exc)
            return None
        self._refused.pop(address, None)
        return region

    def stuck(self) -> frozenset[str]:
        """Return the management functions of the cards that do not answer."""
        return self._watch.stuck()

    def refused(self) -> Mapping[str, Refusal]:
        """Return why cards are not offered, by the address of their management function."""
        return {**self._refused, **dict.fromkeys(self._watch.stuck(), REFUSAL)}

    @abstractmethod
    def program(self, region: Region, provider: str, *, blank: bool) -> None:
        """Program a region, and return only when its maker's executable says that it worked.

        The region's lock is held until the executable ends, even if this process is killed.

        :param provider: whose file the bitstream is
        :param blank: take the file that the configuration names for the region's interface instead
        :raises accelsched.agent.devices.base.DeviceError: when it did not work, or not in time
        """

    @staticmethod
    def _believe(failure: tuple[str, str] | None) -> None:
        if failure is not None:
            raise DeviceError(failure[0]) from errors.AccelschedError(failure[1])

    @abstractmethod
    def function_of(self, region: Region) -> str | None:
        """Return what is in a region at this moment; None: nothing, or it cannot be seen."""

    @staticmethod
    @abstractmethod
    def label(bitstream: Path) -> Label:
        """Return what the header of a bitstream says; nothing when it has none."""
