# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Mediated devices (VFIO mdev): a parent device sells slices of itself, each one of a type.

Kernel interface: Documentation/driver-api/vfio-mediated-device.rst and ABI/testing/sysfs-bus-vfio-mdev.

The uuid of a mediated device is computed from what it is for, so creation can be repeated. It cannot be turned back
into a server, so a journal (one file a device, written before the device is made) says whose it is; what has our mark
and no journal entry, after a lost state directory, is matched against the uuids that present assignments lead to.

Where the host has mdevctl, each device is defined there as well, so that it comes back at a boot before the agent does.
The journal stays the truth: definitions follow it, and one that it does not know is a device that is nobody's.

A GPU may offer several types, each as a resource class of its own. How many of each it can have depends on what it
carries; the resource database is told that one type excludes the others, as time-sliced GPUs have it.

On GPUs with SR-IOV (NVIDIA's from Ampere on) each virtual function is a parent, with room for one device. They belong
to their GPU, which is what is offered: its capacity is what its driver says that it can have of a type
(``max_instance``), however many virtual functions say that there is room for one.
"""

from __future__ import annotations

import errno
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import os_resource_classes as orc
from oslo_config import cfg
from oslo_log import log

from accelsched import names, wire
from accelsched.agent.devices import base, links, sysfs
from accelsched.agent.devices.definitions import Definition, Definitions
from accelsched.agent.devices.journal import Journal
from accelsched.agent.devices.watch import REFUSAL, Watch
from accelsched.agent.privileged import operations
from accelsched.failpoints import Point, reach

LOG = log.getLogger(__name__)

_VFIO_API = "vfio-pci"  # the other ones (vfio-ap, vfio-ccw) are not GPUs

# In NVIDIA's description of a type.
_MAX_INSTANCE = re.compile(r"\bmax_instance=([0-9]{1,6})\b")
_FRAMEBUFFER = re.compile(r"\bframebuffer=([0-9]{1,8})M\b")
_DISPLAY = re.compile(r"\b(num_heads|max_resolution)=(\w+)")


class JournalEntry(NamedTuple):
    """What a mediated device is for."""

    server_uuid: str
    parent: str
    type: str
    resource_class: str = orc.VGPU  # of entries from before there were others


@dataclass(frozen=True)
class Gpu:
    """What is offered as one device: a parent, or a physical function whose virtual functions are parents."""

    name: str  # PCI address, or what a virtual parent is called
    function: Path
    parents: Sequence[Path]

    def types(self, name: str) -> list[Path]:
        """Return a type's directories at the parents that support it."""
        paths = (parent / "mdev_supported_types" / name for parent in self.parents)
        return [path for path in paths if _is_vfio_pci(path)]


class MdevDriver(base.DeviceDriver):
    """Hands out mediated devices of physical GPUs, of their virtual functions, and of virtual parents such as mtty."""

    def __init__(self, context: base.HostContext) -> None:
        super().__init__(context)
        self._sysfs = Path(context.conf.devices.sysfs_root)
        self._devices = self._sysfs / "bus/mdev/devices"
        self._journal = Journal(context.state_path / "mdevs")
        self._definitions = Definitions(self._sysfs)
        self._partitions = links.Partitions()
        self._watch = Watch(context.conf.devices.look_timeout)
        self._refused: dict[str, base.Refusal] = {}  # by GPU; the reason was logged
        self._unwanted: dict[str, base.Refusal] = {}  # GPUs without a type that may be used
        self._empty: dict[tuple[str, str], int] = {}  # by GPU and type: what it can have while it carries nothing
        self._choosing = threading.Lock()  # no two devices choose the same virtual function

    def discover(self) -> list[base.Device]:
        """Return every GPU that supports a type we may use."""
        return self._watch.discover({gpu.name: partial(self._look_at, gpu) for gpu in self._gpus()})

    def _look_at(self, gpu: Gpu) -> base.Device | None:
        try:
            device = self._device(gpu, self._offer(gpu))
        except (OSError, ValueError) as exc:
            self._refuse(gpu, str(exc))
            return None
        self._refused.pop(gpu.name, None)
        self._unwanted.pop(gpu.name, None)
        if device is None:
            types = ", ".join(sorted({path.name for parent in gpu.parents for path in _types(parent)}))
            self._unwanted[gpu.name] = base.Refusal(*no_type(types))
        return device

    def refused(self) -> Mapping[str, base.Refusal]:
        """Return why GPUs are not offered."""
        return {**self._unwanted, **self._refused, **dict.fromkeys(self._watch.stuck(), REFUSAL)}

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Create, or find created, one mediated device for each unit, of the type that its class stands for."""
        gpu = self._gpu(allocation["provider_name"])
        offer = self._watch.call(gpu.name, lambda: self._offer(gpu))
        if not offer:
            raise base.DeviceError(f"{gpu.name} supports no vGPU type that may be used")
        if unknown := allocation["resources"].keys() - offer.keys():
            raise base.DeviceError(f"{gpu.name} has {', '.join(sorted(offer))}, not {', '.join(sorted(unknown))}")
        marks = _uuids(server_uuid, allocation)
        for mark, resource_class in marks.items():
            self._create(mark, gpu, JournalEntry(server_uuid, "", offer[resource_class], resource_class))
        return [base.MdevAttachment(allocation["provider_name"], mark) for mark in marks]

    def marks(self, server_uuid: str, allocation: wire.DeviceAllocation) -> frozenset[str]:
        """Return the uuids of the mediated devices of this allocation."""
        if allocation["provider_uuid"] == self.context.node_uuid:
            return frozenset()  # megabytes and the like
        return frozenset(_uuids(server_uuid, allocation))

    def present(self) -> list[base.PresentDevice]:
        """Return our mediated devices, those that the journal knows and a reboot took, and those that are defined."""
        owners = {mark: entry.server_uuid for mark, entry in self._entries().items()}
        marks = {path.name for path in sysfs.entries(self._devices)}
        marks |= {*self._journal.names(), *self._definitions.all()}
        return [base.PresentDevice(mark, owners.get(mark)) for mark in sorted(filter(names.is_own_mdev, marks))]

    def repair(self) -> None:
        """Have what the journal knows be defined as it says."""
        wanted = {mark: Definition(entry.parent, entry.type) for mark, entry in self._entries().items()}
        self._definitions.repair(wanted, self._definition)

    def _definition(self, mark: str) -> Definition | None:
        entry = self._entry_of(mark)
        return None if entry is None else Definition(entry.parent, entry.type)

    def release(self, server_uuid: str, keep: Collection[str] = ()) -> None:
        """Remove every other mediated device that the journal gives this server."""
        for device in self.present():
            if device.server_uuid == server_uuid and device.mark not in keep:
                self.remove(device.mark)

    def remove(self, mark: str) -> None:
        """Remove one mediated device of ours and forget it."""
        if not names.is_own_mdev(mark):
            raise ValueError(f"{mark} does not carry our mark")
        device = self._devices / mark
        if device.exists():
            try:
                self._watch.call(mark, lambda: operations.remove_mdev(mark))
            except FileNotFoundError:
                pass  # gone meanwhile
            except OSError as exc:
                if exc.errno != errno.ENODEV:
                    raise base.DeviceError(f"mediated device {mark} cannot be removed: {exc.strerror}") from exc
        known = self._entry_of(mark) is not None
        self._journal.remove(mark)
        try:
            self._definitions.forget(mark)
        except base.DeviceError as exc:
            if not known:
                raise
            # The server does not wait for that: from now on the definition is nobody's, and tried again.
            LOG.warning("Mediated device %s stays defined: %s", mark, exc)

    def _gpus(self) -> list[Gpu]:
        """Return the GPUs of all parents: virtual functions together, at their physical one."""
        parents: dict[str, list[Path]] = defaultdict(list)
        functions: dict[str, Path] = {}
        for parent in sysfs.entries(self._sysfs / "class/mdev_bus"):
            physical = sysfs.link_name(parent / "physfn")
            name = physical or parent.name
            parents[name].append(parent)
            functions.setdefault(name, (parent / "physfn" if physical else parent).resolve())
        return [Gpu(name, functions[name], some) for name, some in sorted(parents.items())]

    def _refuse(self, gpu: Gpu, reason: str) -> None:
        refusal = base.Refusal(reason)
        if self._refused.get(gpu.name) != refusal:
            self._refused[gpu.name] = refusal
            LOG.warning("GPU %s is not offered for mediated devices: %s", gpu.name, reason)

    def _device(self, gpu: Gpu, offer: Mapping[str, str]) -> base.Device | None:
        if not offer:
            return None
        totals = self._totals(gpu, offer)
        vendor, product = sysfs.pci_id(gpu.function / "vendor"), sysfs.pci_id(gpu.function / "device")
        traits = {names.vgpu_type_trait(type_id) for type_id in offer.values()}
        traits |= _display(gpu, offer.values())
        sizes = {_described(gpu, type_id, _FRAMEBUFFER) for type_id in offer.values()}
        traits |= {names.vgpu_framebuffer_trait(size) for size in sizes if size}
        if vendor and product:
            traits |= {names.pci_vendor_trait(vendor), names.pci_device_trait(vendor, product)}
        return base.Device(
            name=self._provider(gpu),
            how="mdev",
            inventories={name: base.inventory(total) for name, total in totals.items() if total},
            traits=frozenset(
                traits
                | base.place_traits(sysfs.numa_node(gpu.function), sysfs.pcie_root(gpu.function))
                | links.traits(self.context.conf, self._partitions, gpu.name, sysfs.link_name(gpu.function / "driver"))
            ),
            address=gpu.name if names.is_pci_address(gpu.name) else None,
            capacity_rule={"type": "one_type", "resource_classes": sorted(offer)} if len(offer) > 1 else None,
        )

    def _totals(self, gpu: Gpu, offer: Mapping[str, str]) -> dict[str, int]:
        """Return how many units of each class the GPU has for us: all but those that others made.

        While it carries something, sysfs tells of each type what could be made beside that. What we made must not make
        the other types smaller, so they are told as they are without it; what others made is there to stay.
        """
        looks = [_look(parent) for parent in gpu.parents]
        carried: Counter[str] = Counter()
        ours: Counter[str] = Counter()
        available: Counter[str] = Counter()
        for look in looks:
            for type_id, devices in look.carried.items():
                carried[type_id] += len(devices)
                ours[type_id] += sum(map(names.is_own_mdev, devices))
            available.update(look.available)
        most = {type_id: _described(gpu, type_id, _MAX_INSTANCE) for type_id in offer.values()}
        if not carried.total():
            self._empty |= {
                (gpu.name, type_id): min(available[type_id], most[type_id] or available[type_id])
                for type_id in offer.values()
            }
        totals = {}
        for name, type_id in offer.items():
            total = available[type_id] + ours[type_id]
            if most[type_id]:
                total = min(total, most[type_id] - (carried[type_id] - ours[type_id]))
            if len(offer) > 1 and carried == ours:
                total = max(total, self._empty.get((gpu.name, type_id), most[type_id]))
            totals[name] = max(total, 0)
        return totals

    def _provider(self, gpu: Gpu) -> str:
        if names.is_pci_address(gpu.name):
            return names.pci_provider(self.context.host, gpu.name)
        return f"{self.context.host}_mdev_{re.sub('[^A-Za-z0-9]+', '_', gpu.name)}"

    def _gpu(self, provider_name: str) -> Gpu:
        for gpu in self._gpus():
            if self._provider(gpu) == provider_name:
                return gpu
        raise base.DeviceError(f"{provider_name} is not on this host any more")

    def _offer(self, gpu: Gpu) -> dict[str, str]:
        """Return the types of this GPU that are offered, by resource class.

        A GPU that carries devices keeps their types and classes, whatever the options say by now, across reboots too.
        """
        supported = sorted({path.name for parent in gpu.parents for path in _types(parent)})
        offer = offered_types(self.context.conf, supported)
        parents = {parent.name for parent in gpu.parents}
        carried = {
            entry.resource_class: entry.type
            for _, entry in sorted(self._entries().items())
            if entry.parent in parents and entry.type in supported
        }
        return offer if carried.items() <= offer.items() else carried

    def _create(self, mark: str, gpu: Gpu, entry: JournalEntry) -> None:
        before = self._entries().get(mark)
        if before is not None and before.type != entry.type:
            self.remove(mark)  # the server got another size, and a device of another type with it
        device = self._devices / mark
        if device.exists():
            parent = device.resolve().parent
            if parent.name not in {path.name for path in gpu.parents}:
                raise base.DeviceError(f"mediated device {mark} belongs to another parent than {gpu.name}")
            self._record(mark, entry._replace(parent=parent.name))
            return
        with self._choosing:
            type_path = self._watch.call(gpu.name, lambda: self._with_room(mark, gpu, entry.type))
            chosen = type_path.parent.parent.name
            self._record(mark, entry._replace(parent=chosen))
            reach(Point.AGENT_MDEV_DEFINED)
            try:
                self._watch.call(mark, lambda: operations.create_mdev(chosen, entry.type, mark))
            except OSError as exc:
                # EEXIST: made by an earlier attempt that was killed before it could see the answer; or by mdevctl.
                if exc.errno == errno.EEXIST and device.exists():
                    self._record(mark, entry._replace(parent=device.resolve().parent.name))
                elif exc.errno != errno.EEXIST:
                    raise base.DeviceError(
                        f"{gpu.name} gave no mediated device of type {entry.type}: {exc.strerror}"
                    ) from exc

    def _record(self, mark: str, entry: JournalEntry) -> None:
        """Write down what a device is for, and have it be defined."""
        self._journal.put(mark, entry._asdict())
        self._definitions.ensure(mark, lambda: Definition(entry.parent, entry.type))

    def _with_room(self, mark: str, gpu: Gpu, type_id: str) -> Path:
        """Return the type's directory at a parent that has room: where the device was before, if it can be."""
        before = self._entries().get(mark)
        paths = gpu.types(type_id)
        if not paths:
            raise base.DeviceError(f"{gpu.name} does not support type {type_id} any more")
        free = [path for path in paths if sysfs.number(path / "available_instances")]
        free.sort(key=lambda path: before is None or path.parent.parent.name != before.parent)
        return (free or paths)[0]  # of one without room the kernel says why

    def _entries(self) -> dict[str, JournalEntry]:
        """Return what the journal says, by the mark of the device; without entries that are damaged."""
        entries = {mark: self._entry_of(mark) for mark in self._journal.names() if names.is_own_mdev(mark)}
        return {mark: entry for mark, entry in entries.items() if entry is not None}

    def _entry_of(self, mark: str) -> JournalEntry | None:
        record = self._journal.get(mark)
        return None if record is None else _entry(record)


def _entry(record: Mapping[str, Any]) -> JournalEntry | None:
    try:
        return JournalEntry(**{name: str(record[name]) for name in JournalEntry._fields if name in record})
    except TypeError:
        return None


def offered_types(conf: cfg.ConfigOpts, supported: Sequence[str]) -> dict[str, str]:
    """Return which of the types that a GPU supports are offered, by resource class.

    :param conf: ``[devices] enabled_mdev_types`` and ``mdev_class``
    :param supported: sorted by name
    """
    options = conf.devices
    types = [type_id for type_id in options.enabled_mdev_types or supported[:1] if type_id in supported]
    offer: dict[str, str] = {}
    for type_id in dict.fromkeys(types):
        default = names.vgpu_class(type_id) if len(set(types)) > 1 else orc.VGPU
        offer.setdefault(options.mdev_class.get(type_id, default), type_id)
    return offer


def _types(parent: Path) -> list[Path]:
    return [path for path in sysfs.entries(parent / "mdev_supported_types") if _is_vfio_pci(path)]


def no_type(supported: str) -> tuple[str, str]:
    """Return why a GPU is not offered that has no type which may be used, and what to do about it."""
    reason = "it supports no type of [devices] enabled_mdev_types"
    return reason, f"add one of its own there: {supported}" if supported else "see whether its driver offers any type"


class _Look(NamedTuple):
    carried: Mapping[str, Sequence[str]]  # uuids by type
    available: Mapping[str, int]  # by type: how many more can be made


def _look(parent: Path) -> _Look:
    """Return what a parent carries and what it has room for.

    sysfs has no snapshot, so both are looked at again when something was made or removed in between.
    """
    types = _types(parent)
    while True:
        carried = {path: sysfs.entries(path / "devices") for path in types}
        available = {path.name: max(0, int((path / "available_instances").read_text("ascii"))) for path in types}
        if all(sysfs.entries(path / "devices") == devices for path, devices in carried.items()):
            return _Look({path.name: [device.name for device in found] for path, found in carried.items()}, available)


def _display(gpu: Gpu, types: Iterable[str]) -> set[str]:
    """Return the standard traits for displays that their maker says all of some types have."""
    found = []
    for type_id in types:
        texts = [sysfs.read(path / "description") or "" for path in gpu.types(type_id)[:1]]
        told = dict(_DISPLAY.findall(texts[0])) if texts else {}
        wide, _, high = told.get("max_resolution", "").partition("x")
        found.append(
            {f"HW_GPU_MAX_DISPLAY_HEADS_{told.get('num_heads')}", f"HW_GPU_RESOLUTION_W{wide}H{high}"} & names.STANDARD
        )
    return set.intersection(*found) if found else set()


def _described(gpu: Gpu, type_id: str, what: re.Pattern[str]) -> int:
    """Return a number of a type's description, as the GPU's maker wrote it; 0 when it says nothing."""
    for path in gpu.types(type_id):
        if told := what.search(sysfs.read(path / "description") or ""):
            return int(told[1])
    return 0


def _uuids(server_uuid: str, allocation: wire.DeviceAllocation) -> dict[str, str]:
    """Return the uuids of an allocation's mediated devices, each with the class that it is a unit of."""
    units = [name for name, amount in sorted(allocation["resources"].items()) for _ in range(amount)]
    return {
        names.mdev_uuid(server_uuid, allocation["provider_uuid"], allocation["group"], index): name
        for index, name in enumerate(units)
    }


def _is_vfio_pci(type_path: Path) -> bool:
    return sysfs.read(type_path / "device_api") == _VFIO_API
