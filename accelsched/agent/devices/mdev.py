# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Mediated devices (VFIO mdev): a parent device sells slices of itself, each one of a type.

Kernel interface: Documentation/driver-api/vfio-mediated-device.rst and ABI/testing/sysfs-bus-vfio-mdev.

The uuid of a mediated device is computed from what it is for, so creation can be repeated. It cannot be turned back
into a server, so a journal (one file a device, written before the device is made) says whose it is; what has our mark
and no journal entry, after a lost state directory, is matched against the uuids that present assignments lead to.

A parent may offer several types, each as a resource class of its own. How many of each it can have depends on what it
carries; the resource database is told that one type excludes the others, as time-sliced GPUs have it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import os_resource_classes as orc
from oslo_log import log

from accelsched import names, wire
from accelsched.agent.devices import base, sysfs
from accelsched.agent.devices.journal import Journal

LOG = log.getLogger(__name__)

_VFIO_API = "vfio-pci"  # the other ones (vfio-ap, vfio-ccw) are not GPUs

_MAX_INSTANCE = re.compile(r"\bmax_instance=([0-9]{1,6})\b")  # in NVIDIA's description of a type


class JournalEntry(NamedTuple):
    """What a mediated device is for."""

    server_uuid: str
    parent: str
    type: str
    resource_class: str = orc.VGPU  # of entries from before there were others


class MdevDriver(base.DeviceDriver):
    """Hands out mediated devices of physical GPUs, of their virtual functions, and of virtual parents such as mtty."""

    def __init__(self, context: base.HostContext) -> None:
        super().__init__(context)
        self._sysfs = Path(context.conf.devices.sysfs_root)
        self._devices = self._sysfs / "bus/mdev/devices"
        self._journal = Journal(context.state_path / "mdevs")
        self._refused: dict[str, str] = {}  # by parent: the reason that was logged
        self._empty: dict[Path, int] = {}  # by type's path: what its parent can have of it while it carries nothing

    def discover(self) -> list[base.Device]:
        """Return every mdev parent that supports a type we may use."""
        devices = []
        for parent in sysfs.entries(self._sysfs / "class/mdev_bus"):
            try:
                device = self._device(parent, self._offer(parent))
            except (OSError, ValueError) as exc:
                self._refuse(parent, str(exc))
                continue
            self._refused.pop(parent.name, None)
            if device is not None:
                devices.append(device)
        return devices

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Create, or find created, one mediated device for each unit, of the type that its class stands for."""
        parent = self._parent(allocation["provider_name"])
        offer = self._offer(parent)
        if not offer:
            raise base.DeviceError(f"{parent.name} supports no vGPU type that may be used")
        if unknown := allocation["resources"].keys() - offer.keys():
            raise base.DeviceError(f"{parent.name} has {', '.join(sorted(offer))}, not {', '.join(sorted(unknown))}")
        marks = _uuids(server_uuid, allocation)
        for mark, resource_class in marks.items():
            entry = JournalEntry(server_uuid, parent.name, offer[resource_class].name, resource_class)
            self._create(mark, entry, parent, offer[resource_class])
        return [base.MdevAttachment(allocation["provider_name"], mark) for mark in marks]

    def marks(self, server_uuid: str, allocation: wire.DeviceAllocation) -> frozenset[str]:
        """Return the uuids of the mediated devices of this allocation."""
        if allocation["provider_uuid"] == self.context.node_uuid:
            return frozenset()  # megabytes and the like
        return frozenset(_uuids(server_uuid, allocation))

    def present(self) -> list[base.PresentDevice]:
        """Return our mediated devices, and those that the journal knows and a reboot took."""
        owners = {mark: entry.server_uuid for mark, entry in self._entries().items()}
        marks = {*(path.name for path in sysfs.entries(self._devices)), *self._journal.names()}
        return [base.PresentDevice(mark, owners.get(mark)) for mark in sorted(filter(names.is_own_mdev, marks))]

    def release(self, server_uuid: str) -> None:
        """Remove every mediated device that the journal gives this server."""
        for device in self.present():
            if device.server_uuid == server_uuid:
                self.remove(device.mark)

    def remove(self, mark: str) -> None:
        """Remove one mediated device of ours and forget it."""
        if not names.is_own_mdev(mark):
            raise ValueError(f"{mark} does not carry our mark")
        device = self._devices / mark
        if device.exists():
            _refuse_in_use(device)
            try:
                sysfs.write(device / "remove", "1")
            except FileNotFoundError:
                pass  # gone meanwhile
            except OSError as exc:
                if exc.errno != errno.ENODEV:
                    raise base.DeviceError(f"mediated device {mark} cannot be removed: {exc.strerror}") from exc
        self._journal.remove(mark)

    def _refuse(self, parent: Path, reason: str) -> None:
        if self._refused.get(parent.name) != reason:
            self._refused[parent.name] = reason
            LOG.warning("mdev parent %s is not offered: %s", parent.name, reason)

    def _device(self, parent: Path, offer: Mapping[str, Path]) -> base.Device | None:
        if not offer:
            return None
        totals = self._totals(parent, offer)
        function = parent.resolve()
        vendor, product = sysfs.pci_id(function / "vendor"), sysfs.pci_id(function / "device")
        traits = {names.vgpu_type_trait(path.name) for path in offer.values()}
        if vendor and product:
            traits |= {names.pci_vendor_trait(vendor), names.pci_device_trait(vendor, product)}
        return base.Device(
            name=self._provider(parent),
            how="mdev",
            inventories={name: base.inventory(total) for name, total in totals.items() if total},
            traits=frozenset(
                traits | base.numa_traits(sysfs.numa_node(function)) | base.link_traits(self.context.conf, parent.name)
            ),
            address=parent.name if names.is_pci_address(parent.name) else None,
            capacity_rule={"type": "one_type", "resource_classes": sorted(offer)} if len(offer) > 1 else None,
        )

    def _totals(self, parent: Path, offer: Mapping[str, Path]) -> dict[str, int]:
        """Return how many units of each class the parent has for us: all but those that others made.

        While it carries something, sysfs tells of each type what could be made beside that. What we made must not make
        the other types smaller, so they are told as they are without it; what others made is there to stay.
        """
        carried, available = _look(parent, offer.values())
        if not any(carried.values()):
            self._empty.update(available)
        only_ours = all(_is_ours(device) for devices in carried.values() for device in devices)
        totals = {}
        for name, path in offer.items():
            total = available[path] + sum(map(_is_ours, carried[path]))
            if len(offer) > 1 and only_ours:
                total = max(total, self._empty.get(path, _max_instance(path)))
            totals[name] = total
        return totals

    def _provider(self, parent: Path) -> str:
        if names.is_pci_address(parent.name):
            return names.pci_provider(self.context.host, parent.name)
        return f"{self.context.host}_mdev_{re.sub('[^A-Za-z0-9]+', '_', parent.name)}"

    def _parent(self, provider_name: str) -> Path:
        for parent in sysfs.entries(self._sysfs / "class/mdev_bus"):
            if self._provider(parent) == provider_name:
                return parent
        raise base.DeviceError(f"{provider_name} is not on this host any more")

    def _offer(self, parent: Path) -> dict[str, Path]:
        """Return the types of this parent that are offered, by resource class: their directories in sysfs.

        A parent that carries devices keeps their types and classes, whatever the options say by now, across reboots
        too.
        """
        supported = {path.name: path for path in _types(parent)}
        options = self.context.conf.devices
        types = [type_id for type_id in options.enabled_mdev_types or sorted(supported)[:1] if type_id in supported]
        offer: dict[str, Path] = {}
        for type_id in dict.fromkeys(types):
            default = names.vgpu_class(type_id) if len(set(types)) > 1 else orc.VGPU
            offer.setdefault(options.mdev_class.get(type_id, default), supported[type_id])
        carried = {
            entry.resource_class: supported[entry.type]
            for _, entry in sorted(self._entries().items())
            if entry.parent == parent.name and entry.type in supported
        }
        return offer if carried.items() <= offer.items() else carried

    def _create(self, mark: str, entry: JournalEntry, parent: Path, type_path: Path) -> None:
        self._journal.put(mark, entry._asdict())
        device = self._devices / mark
        if not device.exists():
            try:
                sysfs.write(type_path / "create", mark)
            except OSError as exc:
                # EEXIST: made by an earlier attempt that was killed before it could see the answer.
                if exc.errno != errno.EEXIST:
                    raise base.DeviceError(
                        f"{parent.name} gave no mediated device of type {entry.type}: {exc.strerror}"
                    ) from exc
        if device.exists() and device.resolve().parent != parent.resolve():
            raise base.DeviceError(f"mediated device {mark} belongs to another parent than {parent.name}")

    def _entries(self) -> dict[str, JournalEntry]:
        """Return what the journal says, by the mark of the device; without entries that are damaged."""
        entries = {mark: _entry(record) for mark, record in self._journal.all().items() if names.is_own_mdev(mark)}
        return {mark: entry for mark, entry in entries.items() if entry is not None}


def _entry(record: Mapping[str, Any]) -> JournalEntry | None:
    try:
        return JournalEntry(**{name: str(record[name]) for name in JournalEntry._fields if name in record})
    except TypeError:
        return None


def _types(parent: Path) -> list[Path]:
    return [path for path in sysfs.entries(parent / "mdev_supported_types") if _is_vfio_pci(path)]


def _look(parent: Path, types: Collection[Path]) -> tuple[dict[Path, list[Path]], dict[Path, int]]:
    """Return the devices of every type of a parent, and how many more of some types can be made.

    sysfs has no snapshot, so both are looked at again when something was made or removed in between.
    """
    while True:
        carried = {path: sysfs.entries(path / "devices") for path in _types(parent)}
        available = {path: max(0, int((path / "available_instances").read_text("ascii"))) for path in types}
        if all(sysfs.entries(path / "devices") == devices for path, devices in carried.items()):
            return carried, available


def _max_instance(path: Path) -> int:
    """Return how many instances of a type its maker says there can be; 0 when it says nothing."""
    told = _MAX_INSTANCE.search(sysfs.read(path / "description") or "")
    return int(told[1]) if told else 0


def _uuids(server_uuid: str, allocation: wire.DeviceAllocation) -> dict[str, str]:
    """Return the uuids of an allocation's mediated devices, each with the class that it is a unit of."""
    units = [name for name, amount in sorted(allocation["resources"].items()) for _ in range(amount)]
    return {
        names.mdev_uuid(server_uuid, allocation["provider_uuid"], allocation["group"], index): name
        for index, name in enumerate(units)
    }


def _is_ours(path: Path) -> bool:
    return names.is_own_mdev(path.name)


def _is_vfio_pci(type_path: Path) -> bool:
    return sysfs.read(type_path / "device_api") == _VFIO_API


def _refuse_in_use(device: Path) -> None:
    """Refuse to remove a device that somebody holds: the kernel would block the writer until it is let go.

    A VFIO group can be opened once only (Documentation/driver-api/vfio.rst), so EBUSY tells that it is held.
    """
    group = device / "iommu_group"
    if not group.exists():
        return
    try:
        os.close(os.open(Path("/dev/vfio") / group.resolve().name, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise base.DeviceError(f"mediated device {device.name} is in use") from exc
