# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""vGPUs without mediated devices: a virtual function becomes one when its type is written to sysfs.

NVIDIA's drivers do so on newer kernels (vGPU software 17 and later): ``nvidia/current_vgpu_type`` of each virtual
function, 0 for none. Beside it ``nvidia/creatable_vgpu_types`` lists which types it would take just now. It stays bound
to NVIDIA's driver, so libvirt attaches it unmanaged. A journal, one file a virtual function, says whose it is; a type
that is set on one without a record was set by somebody else and is left alone.

A GPU in MIG mode is cut into instances first: each vGPU gets one of its own, at the place that the resource database
chose for it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from oslo_log import log

from accelsched import names, wire
from accelsched.agent.devices import base, functions, links, sysfs
from accelsched.agent.devices.functions import Function
from accelsched.agent.devices.journal import Journal
from accelsched.agent.devices.mdev import no_type, offered_types
from accelsched.agent.devices.nvidia import NvidiaSmi, Profile, VgpuType
from accelsched.agent.devices.watch import REFUSAL, Watch
from accelsched.agent.privileged import operations

LOG = log.getLogger(__name__)

_TOLD_S = 60.0  # so long what nvidia-smi said is taken for true
_NONE = "0"
_CREATABLE = re.compile(r"^\s*(\d+)\s*:", re.MULTILINE)  # 752 : NVIDIA H100-40C
_LOOK = "GPU "  # before the address, where a look at all of a card is named


class Vgpu(NamedTuple):
    """Whose a virtual function is."""

    server_uuid: str
    provider_uuid: str
    group: str
    resource_class: str
    unit: int  # its number of those of that class in that group
    gpu: str  # address of the physical function
    type: int
    profile: int | None  # of its MIG instance
    start: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU whose virtual functions become vGPUs."""

    function: Function
    virtual_functions: Mapping[str, str]  # by address: the type that is set
    types: Mapping[str, VgpuType]  # by id, nvidia-1519
    profiles: Mapping[int, Profile]  # of MIG; none when its mode is off


class VfioDriver(base.DeviceDriver):
    """Hands out virtual functions of GPUs, their vGPU type set."""

    def __init__(self, context: base.HostContext) -> None:
        super().__init__(context)
        self._sysfs = Path(context.conf.devices.sysfs_root)
        self._watch = Watch(context.conf.devices.look_timeout)
        self._functions = functions.Functions(self._sysfs, self._watch)
        self._smi = NvidiaSmi()
        self._partitions = links.Partitions()
        self._journal = Journal(context.state_path / "vgpus")
        self._choosing = threading.Lock()  # no two servers choose the same virtual function
        self._told: dict[str, tuple[float, Mapping[str, VgpuType], Mapping[int, Profile]]] = {}
        self._creatable: dict[str, Collection[int]] = {}  # by GPU: the types that it took while it carried nothing
        self._refused: dict[str, base.Refusal] = {}  # by GPU; the reason was logged

    def discover(self) -> list[base.Device]:
        """Return every GPU that supports a type we may use."""
        cards = {_look(function): partial(self._look_at, function, present) for function, present in self._cards()}
        return self._watch.discover(cards)

    def _look_at(self, function: Function, present: Collection[str]) -> base.Device | None:
        virtual = self._vgpu_types(function, present)
        if not virtual:
            return None
        try:
            gpu = self._gpu(function, virtual)
            device = self._device(gpu, offered_types(self.context.conf, sorted(gpu.types)))
        except base.DeviceError as exc:
            if self._refused.get(function.address) != base.Refusal.of(exc):
                self._refused[function.address] = base.Refusal.of(exc)
                LOG.warning("GPU %s is not offered for vGPUs: %s", function.address, exc)
            return None
        self._refused.pop(function.address, None)
        return device

    def refused(self) -> Mapping[str, base.Refusal]:
        """Return why GPUs are not offered."""
        return {**self._refused, **{name.removeprefix(_LOOK): REFUSAL for name in self._watch.stuck()}}

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Set the type of a virtual function for each unit, or find it set."""
        gpu = self._gpu_of(allocation["provider_name"])
        with self._choosing:
            offer = offered_types(self.context.conf, sorted(gpu.types))
            made = [
                self._make(gpu, offer, server_uuid, allocation, resource_class, index)
                for resource_class, amount in sorted(allocation["resources"].items())
                for index in range(amount)
            ]
        return [base.PciAttachment(allocation["provider_name"], address, managed=False) for address in made]

    def marks(self, server_uuid: str, allocation: wire.DeviceAllocation) -> frozenset[str]:
        """Return the virtual functions of this allocation."""
        key = (server_uuid, allocation["provider_uuid"], allocation["group"])
        return frozenset(
            address
            for address, vgpu in self._vgpus().items()
            if vgpu[: len(key)] == key and vgpu.unit < allocation["resources"].get(vgpu.resource_class, 0)
        )

    def present(self) -> list[base.PresentDevice]:
        """Return the virtual functions on record."""
        owners = {address: vgpu.server_uuid for address, vgpu in self._vgpus().items()}
        return [base.PresentDevice(address, owners.get(address)) for address in self._journal.names()]

    def release(self, server_uuid: str, keep: Collection[str] = ()) -> None:
        """Reset the other virtual functions of a server."""
        for address, vgpu in self._vgpus().items():
            if vgpu.server_uuid == server_uuid and address not in keep:
                self.remove(address)

    def remove(self, mark: str) -> None:
        """Reset a virtual function, remove its MIG instance, and forget it."""
        vgpu = self._vgpus().get(mark)
        attribute = self._attribute(mark)
        if vgpu is not None:
            try:
                self._watch.call(mark, lambda: _reset(mark, attribute))
            except OSError as exc:
                raise base.DeviceError(f"vGPU {mark} cannot be removed: {exc.strerror}") from exc
        if vgpu is not None and vgpu.start is not None:
            for instance in self._smi.instances(vgpu.gpu):
                if (instance.profile, instance.start) == (vgpu.profile, vgpu.start):
                    self._smi.destroy_instance(vgpu.gpu, instance.number)
        self._journal.remove(mark)

    def _cards(self) -> list[tuple[Function, Collection[str]]]:
        """Return the functions that have virtual ones, with the addresses of all functions."""
        present = self._functions.read()
        return [(function, present.keys()) for function in present.values() if function.virtual_functions]

    def _vgpu_types(self, function: Function, present: Collection[str]) -> Mapping[str, str]:
        """Return the types that a function's virtual ones have, of those that take one."""
        told = {address: sysfs.read(self._attribute(address)) for address in sorted(function.virtual_functions)}
        return {address: type_ for address, type_ in told.items() if type_ is not None and address in present}

    def _attribute(self, address: str) -> Path:
        return self._sysfs / "bus/pci/devices" / address / "nvidia/current_vgpu_type"

    def _gpu(self, function: Function, virtual: Mapping[str, str]) -> Gpu:
        if function.iommu_group is None:
            raise base.RefusedError(base.NO_IOMMU_GROUP.reason, base.NO_IOMMU_GROUP.remedy)
        address = function.address
        since, types, profiles = self._told.get(address, (float("-inf"), {}, {}))
        if time.monotonic() - since > _TOLD_S:
            supported = self._smi.vgpu_types(address)
            mig = any(type_.profile is not None for type_ in supported)
            profiles = self._smi.profiles(address) if mig else {}
            types = {
                f"nvidia-{type_.number}": type_
                for type_ in supported
                if (type_.profile in profiles and type_.most_per_instance == 1 if profiles else type_.profile is None)
            }
            self._told[address] = (time.monotonic(), types, profiles)
        if not profiles and set(virtual.values()) == {_NONE}:
            told = [creatable for name in virtual if (creatable := self._takes(name)) is not None]
            if told:
                self._creatable[address] = frozenset().union(*told)
        # What a GPU supports and does not take while it is empty is shut off, by its mode or for want of a licence.
        known = self._creatable.get(address)
        if known is not None and not profiles:
            types = {name: type_ for name, type_ in types.items() if type_.number in known}
        return Gpu(function, virtual, types, profiles)

    def _takes(self, address: str) -> frozenset[int] | None:
        """Return the types that a virtual function takes just now; None when its driver does not say."""
        told = sysfs.read(self._attribute(address).with_name("creatable_vgpu_types"))
        return None if told is None else frozenset(map(int, _CREATABLE.findall(told)))

    def _see(self, function: Function, present: Collection[str]) -> Gpu:
        return self._gpu(function, self._vgpu_types(function, present))

    def _gpu_of(self, provider_name: str) -> Gpu:
        for function, present in self._cards():
            if self._name(function.address) == provider_name:
                return self._watch.call(_look(function), partial(self._see, function, present))
        raise base.DeviceError(f"{provider_name} is not on this host any more")

    def _device(self, gpu: Gpu, offer: Mapping[str, str]) -> base.Device:
        if not offer:
            raise base.RefusedError(*no_type(", ".join(sorted(gpu.types))))
        function = gpu.function
        totals = self._totals(gpu, offer)
        traits = {
            names.pci_vendor_trait(function.vendor),
            names.pci_device_trait(function.vendor, function.product),
            *(names.vgpu_type_trait(type_id) for type_id in offer.values()),
            *(names.vgpu_framebuffer_trait(size) for t in offer.values() if (size := gpu.types[t].framebuffer_mib)),
            *base.place_traits(function.numa_node, function.pcie_root),
            *links.traits(self.context.conf, self._partitions, function.address, function.driver),
        }
        return base.Device(
            name=self._name(function.address),
            how="vfio",
            inventories={name: base.inventory(total) for name, total in totals.items() if total},
            traits=frozenset(traits),
            address=function.address,
            capacity_rule=_rule(gpu, offer),
        )

    def _totals(self, gpu: Gpu, offer: Mapping[str, str]) -> dict[str, int]:
        """Return how many units of each class the GPU has for us: all but those that others made."""
        ours = self._vgpus().keys()
        others = [set_ for address, set_ in gpu.virtual_functions.items() if set_ != _NONE and address not in ours]
        free = len(gpu.virtual_functions) - len(others)
        totals = {}
        for name, type_id in offer.items():
            type_ = gpu.types[type_id]
            foreign = [number for number in others if number != str(type_.number)]
            most = 0 if foreign and not gpu.profiles else type_.most - (len(others) - len(foreign))
            totals[name] = max(min(most, free), 0)
        return totals

    def _make(
        self,
        gpu: Gpu,
        offer: Mapping[str, str],
        server_uuid: str,
        allocation: wire.DeviceAllocation,
        resource_class: str,
        index: int,
    ) -> str:
        key = (server_uuid, allocation["provider_uuid"], allocation["group"], resource_class, index)
        vgpus = self._vgpus()
        address = next((address for address, vgpu in vgpus.items() if vgpu[: len(key)] == key), None)
        start = _start(allocation, resource_class, index) if gpu.profiles else None
        if address is not None and vgpus[address].start != start:
            self.remove(address)  # the server got another size, and another place with it
            address = None
        if address is None:
            if resource_class not in offer:
                raise base.DeviceError(f"{gpu.function.address} has {', '.join(sorted(offer))}, not {resource_class}")
            taken = set(self._journal.names())
            free = [name for name, set_ in gpu.virtual_functions.items() if set_ == _NONE and name not in taken]
            type_ = gpu.types[offer[resource_class]]
            address = self._which_takes(gpu, free, offer[resource_class])
            vgpu = Vgpu(*key, gpu.function.address, type_.number, type_.profile, start)
            self._journal.put(address, vgpu._asdict())
        else:
            vgpu = vgpus[address]
        self._set(address, vgpu)
        return address

    def _which_takes(self, gpu: Gpu, free: Sequence[str], type_id: str) -> str:
        """Return the virtual function, of some free ones, that takes a type."""
        if not free:
            raise base.DeviceError(f"{gpu.function.address} has no free virtual function")
        if gpu.profiles:
            return free[0]  # it takes the type when there is an instance for it
        takes = {name: self._watch.call(name, partial(self._takes, name)) for name in free}
        number = gpu.types[type_id].number
        for name, numbers in takes.items():
            if numbers is None or number in numbers:
                return name
        others = sorted({f"nvidia-{other}" for numbers in takes.values() for other in numbers or ()})
        raise base.DeviceError(
            f"{gpu.function.address} takes no vGPU of type {type_id} just now, but {', '.join(others) or 'none at all'}"
        )

    def _set(self, address: str, vgpu: Vgpu) -> None:
        """Have a virtual function be what its record says."""
        attribute = self._attribute(address)
        set_ = self._watch.call(address, lambda: sysfs.read(attribute))
        if set_ == str(vgpu.type):
            return
        if set_ != _NONE:
            raise base.DeviceError(f"virtual function {address} has vGPU type {set_}, which somebody else set")
        if vgpu.profile is not None and vgpu.start is not None:
            there = [(instance.profile, instance.start) for instance in self._smi.instances(vgpu.gpu)]
            if (vgpu.profile, vgpu.start) not in there:
                self._smi.create_instance(vgpu.gpu, vgpu.profile, vgpu.start)
        try:
            self._watch.call(address, lambda: operations.set_vgpu_type(address, vgpu.type))
        except OSError as exc:
            raise base.DeviceError(f"{address} of {vgpu.gpu} takes no vGPU type {vgpu.type}: {exc.strerror}") from exc

    def _vgpus(self) -> dict[str, Vgpu]:
        read = {address: _vgpu(record) for address, record in self._journal.all().items()}
        return {address: vgpu for address, vgpu in read.items() if vgpu is not None}

    def _name(self, address: str) -> str:
        return names.pci_provider(self.context.host, address)


def _reset(address: str, attribute: Path) -> None:
    if sysfs.read(attribute) not in (None, _NONE):
        operations.set_vgpu_type(address, int(_NONE))


def _look(function: Function) -> str:
    return f"{_LOOK}{function.address}"


def _vgpu(record: Mapping[str, Any]) -> Vgpu | None:
    try:
        return Vgpu(**record)
    except TypeError:
        return None


def _start(allocation: wire.DeviceAllocation, resource_class: str, index: int) -> int:
    starts: Sequence[int] = allocation.get("positions", {}).get(resource_class, ())
    if index >= len(starts):
        raise base.DeviceError(f"nobody chose a place for unit {index} of {resource_class} in {allocation['group']!r}")
    return starts[index]


def _rule(gpu: Gpu, offer: Mapping[str, str]) -> dict[str, Any] | None:
    """Return how the classes share the GPU: by slices in MIG mode, else one type at a time."""
    if not gpu.profiles:
        return {"type": "one_type", "resource_classes": sorted(offer)} if len(offer) > 1 else None
    profiles = {name: gpu.profiles[profile] for name, profile in _profiles(gpu, offer).items()}
    return {
        "type": "slices",
        "memory_slices": max(max(one.starts) + one.memory_slices for one in gpu.profiles.values()),
        "compute_slices": max(one.compute_slices for one in gpu.profiles.values()),
        "profiles": {
            name: {
                "memory_slices": profile.memory_slices,
                "compute_slices": profile.compute_slices,
                "starts": list(profile.starts),
            }
            for name, profile in sorted(profiles.items())
        },
    }


def _profiles(gpu: Gpu, offer: Mapping[str, str]) -> dict[str, int]:
    chosen = {name: gpu.types[type_id].profile for name, type_id in offer.items()}
    return {name: profile for name, profile in chosen.items() if profile is not None}
