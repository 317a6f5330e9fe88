# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Intel's cards with a Device Feature List, programmed by OPAE.

Kernel interface: Documentation/fpga/dfl.rst, ABI/testing/sysfs-class-fpga-region, sysfs-platform-dfl-fme and
sysfs-platform-dfl-port. A card's management engine (FME) is reached through its physical function; the port to its
region, and what a server is given, is the virtual function where there is one, else the physical one. Cards have one
port; one with more is not offered, since OPAE's executables do not say which they program.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from oslo_config import cfg

from accelsched import names
from accelsched.agent.devices import sysfs
from accelsched.agent.devices.base import NO_IOMMU_GROUP, DeviceError, RefusedError
from accelsched.agent.devices.fpga.cards import Cards, Label, Region
from accelsched.agent.privileged import operations
from accelsched.bitstreams import uuid_of

# How a green bitstream (.gbs) begins; the length of its JSON follows in four bytes, the lowest first.
_GBS_MAGIC = bytes.fromhex("58656f6e46504741b747425376303031")
_JSON_MAX = 1 << 20


class DflCards(Cards):
    """Cards that the kernel's dfl-pci driver serves."""

    vendor = "INTEL"
    vendor_id = "8086"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._sysfs = Path(conf.devices.sysfs_root)

    def looks(self) -> Mapping[str, Callable[[], Region]]:
        """Return what looks at each card."""
        cards = {}
        for container in sysfs.entries(self._sysfs / "class/fpga_region"):
            function = container.resolve().parent.parent
            # Others are regions within the management engine, or virtual functions' containers.
            if names.is_pci_address(function.name) and list(container.glob("dfl-fme.*")):
                cards[function.name] = partial(self._region, container, function)
        return cards

    def _region(self, container: Path, function: Path) -> Region:
        ports = [sysfs.read(path) for path in container.glob("dfl-fme.*/ports_num")]
        if ports != ["1"]:
            reason = f"it has {ports[0] if ports else 'no'} ports; cards with one are supported"
            raise RefusedError(reason, "hand the card out whole: list it in [devices] pci_device_spec")
        ids = [sysfs.read(path) for path in container.glob("dfl-fme.*/dfl-fme-region.*/fpga_region/region*/compat_id")]
        interface_id = uuid_of(ids[0]) if ids else None
        product = sysfs.pci_id(function / "device")
        if interface_id is None or product is None:
            reason = "its region tells no compat_id; is dfl_fme_region loaded?"
            raise RefusedError(reason, "modprobe dfl-fme-region dfl-fme-mgr, at every boot")
        handed_out = (function / "virtfn0").resolve() if (function / "virtfn0").exists() else function
        if not names.is_pci_address(handed_out.name):
            raise DeviceError(f"{handed_out.name!r} is not a PCI address")
        if not (handed_out / "iommu_group").exists():
            raise RefusedError(NO_IOMMU_GROUP.reason.replace("it", handed_out.name, 1), NO_IOMMU_GROUP.remedy)
        return Region(
            address=handed_out.name,
            management=function.name,
            product=product,
            interface_id=interface_id,
            function_id=self._function(handed_out),
            numa_node=sysfs.numa_node(function),
            pcie_root=sysfs.pcie_root(function),
        )

    def function_of(self, region: Region) -> str | None:
        """Read the port's afu_id."""
        function = self._sysfs / "bus/pci/devices" / region.address
        return self._watch.call(region.management, lambda: self._function(function))

    @staticmethod
    def _function(function: Path) -> str | None:
        ids = [uuid_of(sysfs.read(path)) for path in function.glob("fpga_region/region*/dfl-port.*/afu_id")]
        return ids[0] if ids else None

    def program(self, region: Region, provider: str, *, blank: bool) -> None:
        """Run fpgaconf, or fpgasupdate."""
        blank_of = region.interface_id if blank else None
        self._believe(operations.program_dfl(provider, region.management, blank_of))

    @staticmethod
    def label(bitstream: Path) -> Label:
        """Read the JSON at the beginning of a .gbs file."""
        with bitstream.open("rb") as file:
            if file.read(len(_GBS_MAGIC)) != _GBS_MAGIC:
                return Label(None, None)
            length = int.from_bytes(file.read(4), "little")
            text = file.read(min(length, _JSON_MAX))
        try:
            image = json.loads(text)["afu-image"]
            functions = [uuid_of(cluster["accelerator-type-uuid"]) for cluster in image["accelerator-clusters"]]
            return Label(uuid_of(image.get("interface-uuid")), functions[0] if functions else None)
        except (ValueError, KeyError, TypeError, AttributeError):
            return Label(None, None)
