# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The contract of device drivers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from oslo_config import cfg

from accelsched import bitstreams, errors, names, wire
from accelsched.agent.privileged import context as privileges
from accelsched.conf import devices

if TYPE_CHECKING:
    from accelsched.agent.virt.base import Progress


class DeviceError(errors.AccelschedError):
    """A device could not be handed out; the text is fit for the server's owner."""


class RefusedError(DeviceError):
    """A device cannot be offered, and something can be done about that."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True)
class Refusal:
    """Why a device is not offered."""

    reason: str
    remedy: str = "see the agent's log"

    @classmethod
    def of(cls, exc: Exception) -> Refusal:
        """Return what an error says of it."""
        return cls(str(exc), exc.remedy) if isinstance(exc, RefusedError) else cls(str(exc))


NO_IOMMU_GROUP = Refusal(
    "it has no IOMMU group (is the IOMMU enabled in firmware and kernel?)",
    "enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or amd_iommu=on",
)


@dataclass(frozen=True)
class MdevAttachment:
    """A mediated device, to be given to the domain by its uuid."""

    provider: str
    uuid: str
    plug: str | None = None  # id of the accelerator, of what is attached to a server that is there


@dataclass(frozen=True)
class PciAttachment:
    """A whole PCI function; ``managed``: libvirt binds it to vfio-pci and gives it back afterwards."""

    provider: str
    address: str
    managed: bool = True
    plug: str | None = None


@dataclass(frozen=True)
class SimulatedAttachment:
    """Nothing real: shown in the domain's metadata and nowhere else."""

    provider: str
    name: str
    plug: str | None = None


Attachment = MdevAttachment | PciAttachment | SimulatedAttachment


@dataclass(frozen=True)
class Device:
    """One physical (or simulated) device: a resource provider below its host's."""

    name: str  # of the resource provider, e.g. HOST_pci_0000_41_00_0
    how: str  # the driver that hands it out: mdev, vfio, pci, simulated
    inventories: Mapping[str, wire.InventoryReport]
    traits: frozenset[str]
    address: str | None = None  # of the PCI function, if it is one
    capacity_rule: Mapping[str, Any] | None = None  # how its classes share it, see wire.ProviderReport
    fault: str | None = None  # what is wrong with it, as the end of a sentence; the rest is as it was before


@dataclass(frozen=True)
class PresentDevice:
    """Something a driver made that carries our mark."""

    mark: str  # what the driver knows it by, e.g. the uuid of a mediated device
    server_uuid: str | None  # whose it is; None when that is not on record


@dataclass(frozen=True)
class HostContext:
    """What a driver may need to know of the host it serves."""

    conf: cfg.ConfigOpts
    host: str
    node_uuid: str
    state_path: Path


class DeviceDriver(ABC):
    """One way of handing hardware to servers. Every method may be repeated, and called from several threads."""

    simulated: ClassVar[bool] = False

    def __init__(self, context: HostContext) -> None:
        self.context = context
        privileges.use(context.conf)  # what a driver has done as root goes by what it goes by

    @abstractmethod
    def discover(self) -> list[Device]:
        """Return the devices there are now; what is wrong with one never hides the others."""

    def program(self, assignment: wire.Assignment, allocation: wire.DeviceAllocation, progress: Progress) -> None:
        """Have the function in the device that the flavor names for it; called before :meth:`prepare`.

        :raises DeviceError: when it cannot be done, as drivers of what cannot be programmed do if it is asked for
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        if allocation["group"] in bitstreams.asked(assignment["flavor"]["extra_specs"]):
            raise DeviceError(f"{allocation['provider_name']} cannot be programmed by the driver that hands it out")

    def refused(self) -> Mapping[str, Refusal]:
        """Return why devices that the last :meth:`discover` saw are not offered, by PCI address."""
        return {}

    @abstractmethod
    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[Attachment]:
        """Make what the allocation promises, or find it made, and return how to attach it.

        :raises DeviceError: when it cannot be done
        """

    def marks(self, server_uuid: str, allocation: wire.DeviceAllocation) -> frozenset[str]:
        """Return the marks of what :meth:`prepare` makes for this allocation.

        A driver that says in :meth:`present` that something is a server's must say here what that is for: what is for
        none of a server's allocations is released.
        """
        return frozenset()

    def present(self) -> list[PresentDevice]:
        """Return what this driver made and has not removed. Drivers that leave nothing behind return nothing."""
        return []

    def repair(self) -> None:  # noqa: B027 - most drivers keep nothing beside
        """Put right what is kept on the host about the devices; called before each comparison, and cheap if all is."""

    def release(self, server_uuid: str, keep: Collection[str] = ()) -> None:  # noqa: B027 - most leave nothing behind
        """Remove everything that was made for a server, whatever is left of it.

        :param keep: marks of what the server goes on to have
        :raises DeviceError: when something is still in use
        """

    def give_back(self, server_uuid: str, allocation: wire.DeviceAllocation) -> None:
        """Remove what was made for one allocation of a server that goes on without it.

        :raises DeviceError: when it is still in use
        """
        for mark in self.marks(server_uuid, allocation):
            self.remove(mark)

    def remove(self, mark: str) -> None:  # noqa: B027 - most drivers leave nothing behind
        """Remove one thing of :meth:`present` that belongs to no server."""


def place_traits(numa_node: int | None, pcie_root: str | None = None) -> frozenset[str]:
    """Return the traits that say where in its host a device is, as far as anybody knows."""
    traits = set() if numa_node is None else {names.numa_node_trait(numa_node)}
    return frozenset(traits if pcie_root is None else traits | {names.pcie_root_trait(pcie_root)})


def link_traits(conf: cfg.ConfigOpts, device: str) -> frozenset[str]:
    """Return the traits that say which devices fast links join a device with.

    :param device: its PCI address, or gpu_N for a simulated one
    """
    return frozenset(map(names.link_partition_trait, devices.link_partitions(conf, device)))


def inventory(total: int) -> wire.InventoryReport:
    """Return the inventory of a device that is neither reserved from nor oversold."""
    return {
        "total": total,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": 1.0,
    }
