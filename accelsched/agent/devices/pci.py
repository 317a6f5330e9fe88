# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole PCI functions and SR-IOV virtual functions, handed out as they are.

libvirt binds them to vfio-pci when the domain starts and gives them back; those that are not *managed* have a driver of
VFIO's already. A journal, one file a unit, says who has what: of a card's virtual functions a server gets any that is
free and keeps it. A unit that is *one time use* stays on record, and reserved, until it was cleaned.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import os_traits
from oslo_log import log

from accelsched import names, wire
from accelsched.agent.devices import base, cleaning, functions, passthrough
from accelsched.agent.devices.functions import Function
from accelsched.agent.devices.passthrough import Problem, Unit
from accelsched.agent.devices.tenures import Tenure, Tenures
from accelsched.agent.devices.watch import STUCK, Watch
from accelsched.agent.privileged import operations
from accelsched.conf import device_spec

LOG = log.getLogger(__name__)


class PciDriver(base.DeviceDriver):
    """Offers what the operator listed in ``[devices] pci_device_spec``, and nothing else."""

    def __init__(self, context: base.HostContext) -> None:
        super().__init__(context)
        self._specs = device_spec.parse(context.conf)
        self._watch = Watch(context.conf.devices.look_timeout)
        self._functions = functions.Functions(Path(context.conf.devices.sysfs_root), self._watch)
        self._tenures = Tenures(context.state_path)
        self._choosing = threading.Lock()  # no two servers choose the same unit
        self._refused: dict[str, str] = {}  # by address: the reason that was logged

    def discover(self) -> list[base.Device]:
        """Return the listed functions that can be isolated from the rest of the host, virtual ones at their card."""
        offered, problems, present = self._look()
        refused = {problem.address: f"{problem.reason}; {problem.remedy}" for problem in problems}
        for address, reason in refused.items():
            if self._refused.get(address) != reason:
                LOG.warning("PCI function %s is not offered: %s", address, reason)
        self._refused = refused
        tenures = self._tenures.all()
        return [self._device(provider, some, tenures, present) for provider, some in offered.items()]

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Choose units, or find them chosen, and check that they are still fit; libvirt does the rest."""
        with self._choosing:
            here = self._units_of(allocation["provider_name"])
            chosen = [
                self._choose(here, server_uuid, allocation, resource_class, index)
                for resource_class, amount in sorted(allocation["resources"].items())
                for index in range(amount)
            ]
        return [
            base.PciAttachment(allocation["provider_name"], address, managed=unit.spec.managed)
            for unit in map(_answering, chosen)
            for address in unit.addresses
        ]

    def marks(self, server_uuid: str, allocation: wire.DeviceAllocation) -> frozenset[str]:
        """Return the units that a server has, or had and may have again before they are cleaned."""
        return frozenset(
            address
            for address, tenure in self._tenures.all().items()
            if tenure.serves(server_uuid, allocation)
            and tenure.index < allocation["resources"].get(tenure.resource_class, 0)
        )

    def present(self) -> list[base.PresentDevice]:
        """Return the units on record; those that wait to be cleaned are nobody's."""
        tenures = self._tenures.all()
        owners = {address: tenure.server_uuid for address, tenure in tenures.items() if not tenure.used}
        return [base.PresentDevice(address, owners.get(address)) for address in self._tenures.names()]

    def release(self, server_uuid: str, keep: Collection[str] = ()) -> None:
        """Forget what a server had; what must be cleaned stays on record."""
        for address, tenure in self._tenures.all().items():
            if tenure.server_uuid != server_uuid or tenure.used or address in keep:
                continue
            if tenure.one_time_use:
                self._tenures.put(address, dataclasses.replace(tenure, used=True))
            else:
                self._tenures.remove(address)

    def remove(self, mark: str) -> None:
        """Clean a unit that is nobody's any more, and forget it."""
        tenure = self._tenures.all().get(mark)
        if tenure is None or not tenure.used:
            self._tenures.remove(mark)
            return
        if tenure.failure is not None:
            raise base.DeviceError(f"PCI function {mark} stays reserved, for it could not be cleaned: {tenure.failure}")
        if not self.context.conf.devices.cleaning_command:
            raise base.DeviceError(
                f"PCI function {mark} stays reserved after its use until accelsched-agent devices --cleaned {mark}"
            )
        done = cleaning.Cleaning(**operations.clean(tenure.addresses))
        self._tenures.keep_cleaning(mark, done)
        if done.failure is not None:
            self._tenures.put(mark, dataclasses.replace(tenure, failure=done.failure))
            raise base.DeviceError(f"PCI function {mark} could not be cleaned: {done.failure}")
        self._tenures.remove(mark)

    def _look(self) -> tuple[dict[str, list[Unit]], list[Problem], dict[str, Function]]:
        """Return the units by provider, what is listed and cannot be handed out, and every function."""
        if not self._specs:
            return {}, [], {}
        present = self._functions.read(mounted=functions.mounted_devices())
        units, problems = passthrough.arrange(present, self._specs, self._tenures.names())
        offered, mixed = _alike(units)
        return offered, problems + mixed, present

    def _units_of(self, provider_name: str) -> dict[str, Unit]:
        """Return the units of a provider, by the address of the main function."""
        offered, problems, _ = self._look()
        for provider, units in offered.items():
            if self._name(provider) == provider_name:
                return {unit.main.address: unit for unit in units}
        for problem in problems:
            if self._name(problem.provider) == provider_name:
                raise base.DeviceError(f"PCI function {problem.address} cannot be handed out: {problem.reason}")
        raise base.DeviceError(f"{provider_name} is not on this host or not listed any more")

    def _choose(
        self,
        here: Mapping[str, Unit],
        server_uuid: str,
        allocation: wire.DeviceAllocation,
        resource_class: str,
        index: int,
    ) -> Unit:
        tenures = self._tenures.all()
        for address, tenure in tenures.items():
            if tenure.serves(server_uuid, allocation) and (tenure.resource_class, tenure.index) == (
                resource_class,
                index,
            ):
                if address not in here:
                    raise base.DeviceError(f"PCI function {address}, which the server has, is not there any more")
                if tenure.used:  # it is built anew before anybody else could have it
                    self._tenures.put(address, dataclasses.replace(tenure, used=False, failure=None))
                return here[address]
        taken = set(self._tenures.names())
        classes = {unit.resource_class for unit in here.values()}
        if resource_class not in classes:
            raise base.DeviceError(
                f"{allocation['provider_name']} has {', '.join(sorted(classes))}, not {resource_class}"
            )
        free = [
            unit for unit in here.values() if unit.resource_class == resource_class and unit.main.address not in taken
        ]
        if not free:
            waiting = any(tenures[address].used for address in here if address in tenures)
            why = "is not clean yet after its last use" if waiting else "is in use by another server"
            raise base.DeviceError(f"{allocation['provider_name']} {why}")
        # What is bound to vfio-pci though nobody here has it may be somebody else's; the others come first.
        unit = min(free, key=lambda unit: (unit.spec.managed and unit.main.driver == "vfio-pci", unit.main.address))
        tenure = Tenure(
            server_uuid=server_uuid,
            provider_uuid=allocation["provider_uuid"],
            resource_class=resource_class,
            group=allocation["group"],
            index=index,
            addresses=list(unit.addresses),
            one_time_use=unit.spec.one_time_use,
        )
        self._tenures.put(unit.main.address, tenure)
        return unit

    def _device(
        self,
        provider: str,
        units: list[Unit],
        tenures: Mapping[str, Tenure],
        present: Mapping[str, Function],
    ) -> base.Device:
        by_class: dict[str, list[Unit]] = defaultdict(list)
        for unit in units:
            by_class[unit.resource_class].append(unit)
        first = units[0].main
        card = present.get(provider, first)
        traits = {
            names.pci_vendor_trait(first.vendor),
            *(names.pci_device_trait(unit.main.vendor, unit.main.product) for unit in units),
            names.pci_type_trait(first.type),
            *_told(units[0]),
            *base.place_traits(card.numa_node, card.pcie_root),
            *base.link_traits(self.context.conf, provider),
        }
        return base.Device(
            name=self._name(provider),
            how="pci",
            inventories={
                resource_class: {**base.inventory(len(some)), "reserved": _kept_back(some, tenures)}
                for resource_class, some in by_class.items()
            },
            traits=frozenset(traits),
            address=provider,
            fault=STUCK if any(unit.stuck for unit in units) else None,
        )

    def _name(self, address: str) -> str:
        return names.pci_provider(self.context.host, address)


def _answering(unit: Unit) -> Unit:
    if unit.stuck:
        raise base.DeviceError(f"PCI function {unit.stuck} {STUCK}")
    return unit


def _told(unit: Unit) -> frozenset[str]:
    """Return the traits that come from what the operator says of a unit."""
    spec = unit.spec
    flags = (
        (spec.managed, os_traits.COMPUTE_MANAGED_PCI_DEVICE),
        (spec.live_migratable, os_traits.HW_PCI_LIVE_MIGRATABLE),
        (spec.one_time_use, os_traits.HW_PCI_ONE_TIME_USE),
    )
    return spec.traits | {trait for flag, trait in flags if flag}


def _alike(units: list[Unit]) -> tuple[dict[str, list[Unit]], list[Problem]]:
    """Return the units of each provider, and a problem for those whose traits are not the ones of its first."""
    offered: dict[str, list[Unit]] = defaultdict(list)
    problems = []
    for unit in units:
        some = offered[unit.provider]
        if some and _told(some[0]) != _told(unit):
            reason = f"what is said of it is not what is said of {some[0].main.address}, on the same card"
            remedy = "list virtual functions of one card with the same traits and flags"
            problems.append(Problem(unit.main.address, unit.provider, reason, remedy))
        else:
            some.append(unit)
    return offered, problems


def _kept_back(units: list[Unit], tenures: Mapping[str, Tenure]) -> int:
    """Return how many units are reserved: as in Nova, one that may be used once is from the moment that it is used."""
    return sum(unit.spec.one_time_use and unit.main.address in tenures for unit in units)
