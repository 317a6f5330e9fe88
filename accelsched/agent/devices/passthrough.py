# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which PCI functions go to a server together, and why some cannot go at all. Pure: no I/O.

VFIO hands out IOMMU groups, so all functions of a group go together. So do a graphics card's display controller and
what is on the card beside it for its outputs, group or not. A function with virtual functions is not handed out as
long as it has them, nor they while it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from accelsched import names
from accelsched.agent.devices.base import NO_IOMMU_GROUP
from accelsched.agent.devices.functions import Function
from accelsched.conf.device_spec import DeviceSpec

# What graphics cards have beside the display controller: audio, USB, and the controller of a USB-C port.
_BETWEEN_PCI_BUSES = "0604"
_OF_A_GRAPHICS_CARD = ("0403", "0c03", "0c80")


@dataclass(frozen=True)
class Unit:
    """Functions that one server gets together."""

    main: Function  # gives them their name
    beside: tuple[Function, ...]
    spec: DeviceSpec

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of their addresses, the main one first."""
        return self.main.address, *(function.address for function in self.beside)

    @property
    def stuck(self) -> str | None:
        """Which of them does not answer; None when all do."""
        return next((function.address for function in (self.main, *self.beside) if function.stuck), None)

    @property
    def provider(self) -> str:
        """The address that its resource provider is named after: virtual functions are counted at their card's."""
        return self.main.physical_function or self.main.address

    @property
    def resource_class(self) -> str:
        """Its class: what the operator says, else after its ids as in Nova."""
        return self.spec.resource_class or names.pci_class(self.main.vendor, self.main.product)


@dataclass(frozen=True)
class Problem:
    """Why a function that is listed is not handed out."""

    address: str
    provider: str  # as of a unit
    reason: str
    remedy: str


def arrange(
    functions: Mapping[str, Function], specs: Sequence[DeviceSpec], taken: Collection[str] = ()
) -> tuple[list[Unit], list[Problem]]:
    """Return what can be handed out of the functions that are listed, and what cannot.

    :param functions: all of the host's, by address
    :param specs: what the operator listed; the first one that matches counts
    :param taken: addresses of main functions that servers have
    """
    listed = dict(_listed(functions.values(), specs))
    units: list[Unit] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    # The display controller of a graphics card comes before the rest of it.
    for address in sorted(listed, key=lambda address: (not functions[address].is_gpu, address)):
        if address in seen:
            continue
        main = functions[address]
        if main.virtual_functions & listed.keys() and address not in taken:
            continue  # it was listed for their sake
        members = _together(main, functions)
        seen |= members
        unit = Unit(main, tuple(functions[other] for other in sorted(members - {address})), listed[address])
        problem = _problem(unit, functions, listed, taken)
        if problem is None:
            units.append(unit)
        else:
            problems.append(Problem(address, unit.provider, *problem))
    return units, problems


def _listed(functions: Iterable[Function], specs: Sequence[DeviceSpec]) -> Iterator[tuple[str, DeviceSpec]]:
    for function in functions:
        for spec in specs:
            if spec.matches(function.address, function.vendor, function.product, function.physical_function):
                yield function.address, spec
                break


def _together(main: Function, functions: Mapping[str, Function]) -> set[str]:
    """Return the addresses of what goes with a function, its own too."""
    members: set[str] = set()
    more = {main.address}
    while more:
        members |= more
        more = {
            other.address
            for other in functions.values()
            for member in map(functions.__getitem__, more)
            if (other.iommu_group is not None and other.iommu_group == member.iommu_group and not other.is_bridge)
            or _is_beside(member, other)
        } - members
    return members


def _is_beside(gpu: Function, other: Function) -> bool:
    return gpu.is_gpu and other.slot == gpu.slot and other.pci_class.startswith(_OF_A_GRAPHICS_CARD)


def _held_by_bridges(main: Function, functions: Mapping[str, Function]) -> list[Function]:
    """Return the bridges in a function's group whose driver keeps the group from guests.

    Bridges between PCI buses do not, as far as VFIO is concerned: their driver, pcieport, touches nothing behind them.
    """
    return [
        other
        for other in functions.values()
        if other.is_bridge
        and other.iommu_group == main.iommu_group
        and other.address != main.address
        and other.driver not in (None, "vfio-pci", "pci-stub")
        and not other.pci_class.startswith(_BETWEEN_PCI_BUSES)
    ]


def _problem(
    unit: Unit, functions: Mapping[str, Function], listed: Collection[str], taken: Collection[str]
) -> tuple[str, str] | None:
    """Return why a unit cannot be handed out, and what to do about it; None when it can."""
    main = unit.main
    members = (main, *unit.beside)
    strangers = [
        other.address
        for other in unit.beside
        if other.address not in listed and not any(_is_beside(member, other) for member in members)
    ]
    reason: tuple[str, str] | None = None
    if main.is_bridge:
        reason = "it is a bridge", "list only what is behind it"
    elif any(member.iommu_group is None for member in members):
        reason = NO_IOMMU_GROUP.reason, NO_IOMMU_GROUP.remedy
    elif bridges := _held_by_bridges(main, functions):
        reason = (
            f"its IOMMU group is shared with bridge {bridges[0].address}, which {bridges[0].driver} drives",
            f"put the card into a slot with a group of its own, or unbind the bridge: echo {bridges[0].address} > "
            f"/sys/bus/pci/drivers/{bridges[0].driver}/unbind",
        )
    elif main.address not in taken and (parents := [member for member in members if member.virtual_functions]):
        reason = (
            f"{parents[0].address} has {len(parents[0].virtual_functions)} virtual functions",
            f"list those, or remove them: echo 0 > /sys/bus/pci/devices/{parents[0].address}/sriov_numvfs",
        )
    elif main.physical_function in taken:
        reason = (
            f"its physical function {main.physical_function} is handed out itself",
            "wait until the server that has it is gone",
        )
    elif strangers:
        reason = (
            f"its IOMMU group also holds {', '.join(strangers)}, not listed in [devices] pci_device_spec",
            "list those too, for they go to the same server, or put the card into a slot with a group of its own",
        )
    elif used := [f"{member.address}: {member.host_use}" for member in members if member.host_use]:
        reason = f"this host uses {used[0]}", "have the host let go of it, or do not list it"
    elif not unit.spec.managed and main.driver is None:
        reason = (
            "no driver is bound to it, and libvirt shall not bind one (managed: no)",
            "bind its VFIO driver, for example vfio-pci, or say managed: yes",
        )
    return reason
