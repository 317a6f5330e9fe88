# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI functions as sysfs shows them. Interface: the kernel's Documentation/ABI/testing/sysfs-bus-pci."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelsched import names
from accelsched.agent.devices import sysfs
from accelsched.agent.devices.watch import Watch

# PCI base classes
_STORAGE = "01"
_DISPLAY = "03"
_BRIDGE = "06"
_ACCELERATOR = "12"


@dataclass(frozen=True)
class Function:
    """One PCI function, at the moment that it was looked at."""

    address: str  # full, in lower case
    vendor: str  # four hexadecimal digits in lower case
    product: str
    pci_class: str  # six hexadecimal digits: base class, subclass, interface
    driver: str | None = None
    iommu_group: str | None = None
    numa_node: int | None = None
    pcie_root: str | None = None  # the host bridge that it is below, 0000:40
    physical_function: str | None = None  # address, of a virtual function
    virtual_functions: frozenset[str] = frozenset()  # addresses of those that are there
    virtual_functions_max: int = 0  # how many there could be; 0: it has no SR-IOV
    host_use: str | None = None  # what this host itself does with it: it holds ...
    stuck: bool = False  # it does not answer; the rest is as it was before, or unknown

    @property
    def slot(self) -> str:
        """The address without the function: those of one slot are on one card."""
        return self.address.rpartition(".")[0]

    @property
    def is_bridge(self) -> bool:
        """Whether it is a host, ISA, PCI ... bridge: nothing that could be handed out."""
        return self.pci_class.startswith(_BRIDGE)

    @property
    def is_gpu(self) -> bool:
        """Whether it is a display controller, with or without outputs."""
        return self.pci_class.startswith(_DISPLAY)

    @property
    def is_accelerator(self) -> bool:
        """Whether it is a processing accelerator, as FPGAs and NPUs are."""
        return self.pci_class.startswith(_ACCELERATOR)

    @property
    def type(self) -> str:
        """Which of Nova's types of PCI devices it is of."""
        if self.physical_function is not None:
            return "type-VF"
        return "type-PF" if self.virtual_functions_max else "type-PCI"


class Functions:
    """The PCI functions of a host."""

    def __init__(self, sysfs_root: Path, watch: Watch) -> None:
        self._directory = sysfs_root / "bus/pci/devices"
        self._watch = watch
        self._last: dict[str, Function] = {}

    def read(self, *, mounted: frozenset[str] = frozenset()) -> dict[str, Function]:
        """Return every function by address; one that vanishes meanwhile, or has no ids, is left out.

        One that does not answer is as it was before, or as far as it is known without it.

        :param mounted: block devices that this host uses, MAJOR:MINOR each
        """
        paths = {path.name: path for path in sysfs.entries(self._directory) if names.is_pci_address(path.name)}
        seen = self._watch.each({name: partial(_function, path, mounted) for name, path in paths.items()})
        found = {name: function for name, function in seen.items() if function is not None}
        for name in paths.keys() - seen.keys():
            found[name] = dataclasses.replace(self._last.get(name) or _outside(paths[name]), stuck=True)
        self._last = found
        return dict(sorted(found.items()))


def _outside(path: Path) -> Function:
    """Return what the links around a function tell of it, for which nobody asks its driver."""
    return Function(
        address=path.name,
        vendor="",
        product="",
        pci_class="",
        driver=sysfs.link_name(path / "driver"),
        iommu_group=sysfs.link_name(path / "iommu_group"),
        physical_function=sysfs.link_name(path / "physfn"),
        virtual_functions=_virtual_functions(path),
    )


def _virtual_functions(path: Path) -> frozenset[str]:
    return frozenset(filter(None, (sysfs.link_name(link) for link in path.glob("virtfn[0-9]*"))))


def mounted_devices(mountinfo: Path = Path("/proc/self/mountinfo")) -> frozenset[str]:
    """Return the block devices that file systems of this host are on, MAJOR:MINOR each (see proc_pid_mountinfo(5))."""
    lines = (sysfs.read(mountinfo) or "").splitlines()
    return frozenset(fields[2] for fields in map(str.split, lines) if len(fields) > 2)


def _function(path: Path, mounted: frozenset[str]) -> Function | None:
    vendor, product = sysfs.pci_id(path / "vendor"), sysfs.pci_id(path / "device")
    if vendor is None or product is None:
        return None
    pci_class = (sysfs.read(path / "class") or "").removeprefix("0x")
    return Function(
        address=path.name,
        vendor=vendor,
        product=product,
        pci_class=pci_class,
        driver=sysfs.link_name(path / "driver"),
        iommu_group=sysfs.link_name(path / "iommu_group"),
        numa_node=sysfs.numa_node(path),
        pcie_root=sysfs.pcie_root(path),
        physical_function=sysfs.link_name(path / "physfn"),
        virtual_functions=_virtual_functions(path),
        virtual_functions_max=sysfs.number(path / "sriov_totalvfs") or 0,
        host_use=_host_use(path, pci_class, mounted),
    )


def _host_use(path: Path, pci_class: str, mounted: frozenset[str]) -> str | None:
    """Return what the host would lose with a function: its console, a network link that is up, a disk in use."""
    if sysfs.read(path / "boot_vga") == "1" and sysfs.link_name(path / "driver") not in (None, "vfio-pci"):
        return "it is the console of this host"
    for interface in sysfs.entries(path / "net"):
        if sysfs.read(interface / "operstate") == "up":
            return f"it is the network interface {interface.name}, which is up"
    for number in sorted(path.rglob("dev")) if pci_class.startswith(_STORAGE) else ():
        disk = number.parent
        if sysfs.link_name(disk / "subsystem") != "block":
            continue
        if sysfs.read(number) in mounted:
            return f"it holds {disk.name}, which is mounted"
        if sysfs.entries(disk / "holders"):
            return f"it holds {disk.name}, which device mapper or RAID uses"
    return None
