# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI functions as sysfs shows them. Interface: the kernel's Documentation/ABI/testing/sysfs-bus-pci."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelsched import names
from accelsched.agent.devices import sysfs

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
    physical_function: str | None = None  # address, of a virtual function
    virtual_functions: frozenset[str] = frozenset()  # addresses of those that are there
    virtual_functions_max: int = 0  # how many there could be; 0: it has no SR-IOV
    host_use: str | None = None  # what this host itself does with it: it holds ...

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


def read(sysfs_root: Path, *, mounted: frozenset[str] = frozenset()) -> dict[str, Function]:
    """Return every PCI function by address; one that vanishes meanwhile, or has no ids, is left out.

    :param mounted: block devices that this host uses, MAJOR:MINOR each
    """
    found = (_function(path, mounted) for path in sysfs.entries(sysfs_root / "bus/pci/devices"))
    return {function.address: function for function in found if function is not None}


def mounted_devices(mountinfo: Path = Path("/proc/self/mountinfo")) -> frozenset[str]:
    """Return the block devices that file systems of this host are on, MAJOR:MINOR each (see proc_pid_mountinfo(5))."""
    lines = (sysfs.read(mountinfo) or "").splitlines()
    return frozenset(fields[2] for fields in map(str.split, lines) if len(fields) > 2)


def _function(path: Path, mounted: frozenset[str]) -> Function | None:
    vendor, product = sysfs.pci_id(path / "vendor"), sysfs.pci_id(path / "device")
    if vendor is None or product is None or not names.is_pci_address(path.name):
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
        physical_function=sysfs.link_name(path / "physfn"),
        virtual_functions=frozenset(filter(None, (sysfs.link_name(link) for link in path.glob("virtfn[0-9]*")))),
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
