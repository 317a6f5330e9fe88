# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A sysfs tree of plain files, and what the kernel does when one of its attributes is written."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path


class FakeSysfs:
    """PCI functions, their IOMMU groups, mdev parents and mediated devices below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.functions = root / "bus/pci/devices"
        self.mdevs = root / "bus/mdev/devices"
        self._kernel = threading.Lock()
        self.mdev_bus = root / "class/mdev_bus"
        self._time_sliced: dict[Path, dict[str, int]] = {}  # by parent: instances by type while it carries nothing
        self._creatable: dict[Path, Mapping[int, str]] = {}  # vGPU types, by directory of the virtual function's driver
        for directory in (self.functions, self.mdevs, self.mdev_bus, root / "kernel/iommu_groups"):
            directory.mkdir(parents=True, exist_ok=True)

    def add_function(
        self,
        address: str,
        vendor: str = "1234",
        product: str = "11e8",
        *,
        pci_class: str = "0x00ff00",
        group: int | None,
    ) -> Path:
        path = self.root / "devices/pci0000:00" / address
        path.mkdir(parents=True)
        for name, value in (("vendor", f"0x{vendor}"), ("device", f"0x{product}"), ("class", pci_class)):
            (path / name).write_text(f"{value}\n")
        (self.functions / address).symlink_to(path)
        if group is not None:
            members = self.root / "kernel/iommu_groups" / str(group) / "devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(path)
            (path / "iommu_group").symlink_to(members.parent)
        return path

    def add_virtual_functions(
        self, physical_function: str, addresses: list[str], product: str = "11e9", *, first_group: int
    ) -> None:
        """Give a function virtual functions, each in a group of its own."""
        parent = self.functions / physical_function
        vendor = (parent / "vendor").read_text().strip().removeprefix("0x")
        for number, address in enumerate(addresses):
            path = self.add_function(address, vendor, product, group=first_group + number)
            (path / "physfn").symlink_to(f"../{physical_function}")
            (parent / f"virtfn{number}").symlink_to(f"../{address}")
        (parent / "sriov_totalvfs").write_text("16\n")

    def bind(self, address: str, driver: str | None) -> None:
        """Bind a function to a driver, or to none."""
        (self.functions / address / "driver").unlink(missing_ok=True)
        if driver is not None:
            (self.functions / address / "driver").symlink_to(f"../../bus/pci/drivers/{driver}")

    def add_vendor_vgpus(self, virtual_functions: list[str]) -> None:
        """Have virtual functions take a vGPU type, as NVIDIA's driver does."""
        for address in virtual_functions:
            directory = self.functions / address / "nvidia"
            directory.mkdir()
            (directory / "current_vgpu_type").write_text("0\n")
            self.bind(address, "nvidia")

    def make_creatable(self, virtual_functions: list[str], types: Mapping[int, str]) -> None:
        """Say which types virtual functions take while none is set; the first that is set excludes the others.

        :param types: names by number
        """
        for address in virtual_functions:
            directory = self.functions / address / "nvidia"
            self._creatable[directory] = types
            self._tell_creatable(directory, types)

    def _tell_creatable(self, directory: Path, types: Mapping[int, str]) -> None:
        told = "ID    : vGPU Name\n" + "".join(f"{number} : {name}\n" for number, name in types.items())
        (directory / "creatable_vgpu_types").write_text(told)

    def add_mdev_parent(
        self, path: Path, types: dict[str, int], device_api: str = "vfio-pci", *, time_sliced: bool = False
    ) -> None:
        """Make a device an mdev parent.

        :param types: how many instances of each type it can have
        :param time_sliced: whether none of another type can be made beside one of a type
        """
        if time_sliced:
            self._time_sliced[path] = types
        path.mkdir(parents=True, exist_ok=True)
        (self.mdev_bus / path.name).symlink_to(path)
        for name, available in types.items():
            directory = path / "mdev_supported_types" / name
            (directory / "devices").mkdir(parents=True)
            (directory / "available_instances").write_text(f"{available}\n")
            (directory / "device_api").write_text(f"{device_api}\n")
            (directory / "name").write_text(f"LAB {name}\n")
            (directory / "create").write_text("")

    def add_mdev(self, type_directory: Path, uuid: str) -> None:
        """Make a mediated device, as the kernel does for who writes to ``create``."""
        parent = type_directory.parent.parent
        device = parent / uuid
        device.mkdir()
        (device / "remove").write_text("")
        (device / "mdev_type").symlink_to(type_directory)
        (type_directory / "devices" / uuid).symlink_to(device)
        (self.mdevs / uuid).symlink_to(device)
        self._count(type_directory, -1)

    def remove_mdev(self, uuid: str) -> None:
        device = (self.mdevs / uuid).resolve()
        type_directory = (device / "mdev_type").resolve()
        (type_directory / "devices" / uuid).unlink()
        (self.mdevs / uuid).unlink()
        shutil.rmtree(device)
        self._count(type_directory, 1)

    def _count(self, type_directory: Path, change: int) -> None:
        types = self._time_sliced.get(type_directory.parent.parent)
        if types is None:
            self._set(type_directory, int((type_directory / "available_instances").read_text()) + change)
            return
        made = {name: len(list((type_directory.parent / name / "devices").iterdir())) for name in types}
        for name, most in types.items():
            others = sum(made.values()) - made[name]
            self._set(type_directory.parent / name, 0 if others else most - made[name])

    @staticmethod
    def _set(type_directory: Path, instances: int) -> None:
        available = type_directory / "available_instances"
        changed = available.with_suffix(".new")
        changed.write_text(f"{instances}\n")
        changed.replace(available)  # a reader never sees half of it

    # --- the kernel ---------------------------------------------------------------------------------------------

    def write(self, path: Path, text: str) -> None:
        """Do what the kernel does; stands in for :func:`accelsched.agent.devices.sysfs.write`."""
        with self._kernel:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        if path.name == "create":
            if (self.mdevs / text).is_symlink():
                raise OSError(errno.EEXIST, "File exists")
            if int((path.parent / "available_instances").read_text()) < 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.add_mdev(path.parent.resolve(), text)
        elif path.name == "remove" and text == "1":
            self.remove_mdev(path.parent.name)
        elif path.name == "current_vgpu_type":
            if text != "0" and path.read_text() != "0\n":
                raise OSError(errno.EPERM, "Operation not permitted")
            path.write_text(f"{text}\n")
            set_ = {(directory / "current_vgpu_type").read_text().strip() for directory in self._creatable} - {"0"}
            for directory, types in self._creatable.items():
                left = {number: name for number, name in types.items() if not set_ or str(number) in set_}
                self._tell_creatable(directory, left)
        else:
            raise OSError(errno.EINVAL, f"{path} <- {text!r}")
