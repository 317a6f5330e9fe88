# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Xilinx' (AMD's) Alveo cards, looked at and programmed by the executables of XRT.

A card has a function for management, which stays with the host (driver xclmgmt), and one for users, which is handed
out. ``xbmgmt examine`` tells the interface of its shell's last partition, which an xclbin is made for; ``xbutil
examine`` the xclbin that is loaded, and ``xbutil program`` loads one. Both write JSON into a file only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from oslo_config import cfg

from accelsched import names
from accelsched.agent.devices import sysfs
from accelsched.agent.devices.base import NO_IOMMU_GROUP, DeviceError, RefusedError
from accelsched.agent.devices.fpga.cards import Cards, Label, Region
from accelsched.agent.privileged import operations
from accelsched.bitstreams import uuid_of

_XCLBIN_MAGIC = b"xclbin2\0"
_INTERFACE_AT, _UUID_AT = 336, 416  # bytes from the beginning of an xclbin (struct axlf)
_NOTHING = "00000000-0000-0000-0000-000000000000"


class XilinxCards(Cards):
    """Cards whose management function the kernel's xclmgmt driver serves."""

    vendor = "XILINX"
    vendor_id = "10ee"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._options = conf.fpga
        self._functions = Path(conf.devices.sysfs_root) / "bus/pci/devices"
        self._interfaces: dict[str, tuple[str, float]] = {}  # by management function: what it said, and when
        self._loaded: dict[str, tuple[str | None, float]] = {}  # by user function: the same of the xclbin

    def looks(self) -> Mapping[str, Callable[[], Region]]:
        """Return what looks at each card."""
        return {
            path.name: partial(self._region, path)
            for path in sysfs.entries(self._functions)
            if names.is_pci_address(path.name) and _driver(path) == "xclmgmt"
        }

    def _region(self, management: Path) -> Region:
        user = self._functions / f"{management.name.partition('.')[0]}.1"
        product = sysfs.pci_id(user / "device")
        if product is None:
            reason = f"there is no user function {user.name}; is a shell loaded?"
            raise RefusedError(reason, f"load one: xbmgmt program --shell UUID --device {management.name}")
        if not (user / "iommu_group").exists():
            raise RefusedError(NO_IOMMU_GROUP.reason.replace("it", user.name, 1), NO_IOMMU_GROUP.remedy)
        return Region(
            address=user.name,
            management=management.name,
            product=product,
            interface_id=self._interface(management.name),
            function_id=self._function(user.name),
            numa_node=sysfs.numa_node(user),
            pcie_root=sysfs.pcie_root(user),
        )

    def _interface(self, management: str) -> str:
        said = self._interfaces.get(management)
        if said is None or self._is_old(said[1]):
            platform = self._examine(management, "platform").get("platform") or {}
            partitions = [platform.get("current_shell") or {}, *(platform.get("current_partitions") or [])]
            interfaces = [uuid_of(one.get("interface-uuid")) for one in partitions]
            if interfaces[-1] is None:
                reason = "its shell tells no interface UUID; shells of one stage are not supported"
                raise RefusedError(reason, "load a shell of two stages, with DFX (xbmgmt program --shell)")
            said = self._interfaces[management] = (interfaces[-1], time.monotonic())
        return said[0]

    def _function(self, user: str) -> str | None:
        if _driver(self._functions / user) != "xocl":
            return None  # a server has it
        said = self._loaded.get(user)
        if said is None or self._is_old(said[1]):
            regions = self._examine(user, "dynamic-regions").get("dynamic_regions") or []
            loaded = [uuid_of(region.get("xclbin_uuid")) for region in regions]
            function_id = loaded[0] if loaded and loaded[0] != _NOTHING else None
            said = self._loaded[user] = (function_id, time.monotonic())
        return said[0]

    def _is_old(self, when: float) -> bool:
        return time.monotonic() - when > float(self._options.examine_interval)

    def _examine(self, address: str, report: str) -> dict[str, Any]:
        """Return what is reported of the card with a function.

        :raises DeviceError: when it fails, or tells nothing of the card
        """
        try:
            (device,) = json.loads(operations.examine_xilinx(report, address))["devices"]
        except (ValueError, KeyError, TypeError) as exc:
            raise DeviceError(f"XRT told nothing of {address} that can be understood") from exc
        if not isinstance(device, dict):
            raise DeviceError(f"XRT told nothing of {address} that can be understood")
        return device

    def function_of(self, region: Region) -> str | None:
        """Ask anew."""
        self._loaded.pop(region.address, None)
        return self._function(region.address)

    def program(self, region: Region, provider: str, *, blank: bool) -> None:
        """Run xbutil program."""
        blank_of = region.interface_id if blank else None
        self._believe(operations.program_xilinx(provider, region.address, blank_of))

    @staticmethod
    def label(bitstream: Path) -> Label:
        """Read the header of an xclbin."""
        with bitstream.open("rb") as file:
            header = file.read(_UUID_AT + 16)
        if not header.startswith(_XCLBIN_MAGIC) or len(header) < _UUID_AT + 16:
            return Label(None, None)
        interface, own = (uuid_of(header[at : at + 16].hex()) for at in (_INTERFACE_AT, _UUID_AT))
        return Label(None if interface == _NOTHING else interface, None if own == _NOTHING else own)


def _driver(function: Path) -> str | None:
    """Return the driver that a function is bound to; None when it is to none."""
    link = function / "driver"
    return link.resolve().name if link.exists() else None
