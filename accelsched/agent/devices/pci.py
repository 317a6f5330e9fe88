# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole PCI functions, handed out as they are; libvirt binds them to vfio-pci and gives them back."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oslo_log import log

from accelsched import names, wire
from accelsched.agent.devices import base, sysfs
from accelsched.conf import devices as options

LOG = log.getLogger(__name__)

_BRIDGE = "0x06"  # PCI base class: host, ISA and PCI bridges


@dataclass(frozen=True)
class Function:
    """A PCI function as sysfs shows it."""

    path: Path
    address: str
    vendor: str
    product: str
    pci_class: str  # 0x030200


class PciDriver(base.DeviceDriver):
    """Offers what the operator listed in ``[devices] pci_device_spec``, and nothing else."""

    def __init__(self, context: base.HostContext) -> None:
        super().__init__(context)
        self._specs = options.pci_device_specs(context.conf)
        self._functions = Path(context.conf.devices.sysfs_root) / "bus/pci/devices"
        self._refused: dict[str, str] = {}  # by address: the reason that was logged

    def discover(self) -> list[base.Device]:
        """Return the listed functions that can be isolated from the rest of the host."""
        if not self._specs:
            return []
        listed = self._listed()
        devices, refused = [], {}
        for address, (function, spec) in listed.items():
            reason = _unfit(function, set(listed))
            if reason is None:
                devices.append(self._device(function, spec))
            else:
                refused[address] = reason
        for address, reason in refused.items():
            if self._refused.get(address) != reason:
                LOG.warning("PCI function %s is not offered: %s", address, reason)
        self._refused = refused
        return devices

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Check that the function is still there and still listed; libvirt does the rest when the domain starts."""
        listed = self._listed()
        for address, (function, _) in listed.items():
            if names.pci_provider(self.context.host, address) != allocation["provider_name"]:
                continue
            reason = _unfit(function, set(listed))
            if reason is not None:
                raise base.DeviceError(f"PCI function {address} cannot be handed out: {reason}")
            return [base.PciAttachment(allocation["provider_name"], address)]
        raise base.DeviceError(f"{allocation['provider_name']} is not on this host or not listed any more")

    def _listed(self) -> dict[str, tuple[Function, dict[str, Any]]]:
        listed = {}
        for path in sysfs.entries(self._functions):
            function = _function(path)
            spec = next((spec for spec in self._specs if function and _matches(function, spec)), None)
            if function and spec:
                listed[function.address] = (function, spec)
        return listed

    def _device(self, function: Function, spec: dict[str, Any]) -> base.Device:
        model = function.vendor, function.product
        resource_class = spec.get("resource_class") or names.pci_class(*model)
        traits = {
            names.pci_vendor_trait(function.vendor),
            names.pci_device_trait(*model),
            names.pci_type_trait(_type(function.path)),
            *spec.get("traits", []),
            *base.numa_traits(sysfs.numa_node(function.path)),
            *base.link_traits(self.context.conf, function.address),
        }
        return base.Device(
            name=names.pci_provider(self.context.host, function.address),
            how="pci",
            inventories={resource_class: base.inventory(1)},
            traits=frozenset(traits),
            address=function.address,
        )


def _function(path: Path) -> Function | None:
    vendor, product = sysfs.pci_id(path / "vendor"), sysfs.pci_id(path / "device")
    if vendor is None or product is None or not names.is_pci_address(path.name):
        return None
    return Function(path, path.name, vendor, product, sysfs.read(path / "class") or "")


def _type(path: Path) -> str:
    """Return which of Nova's types of PCI devices a function is of."""
    if (path / "physfn").exists():
        return "type-VF"
    return "type-PF" if (path / "sriov_totalvfs").exists() else "type-PCI"


def _matches(function: Function, spec: dict[str, Any]) -> bool:
    return (
        spec.get("vendor_id", function.vendor).lower() == function.vendor
        and spec.get("product_id", function.product).lower() == function.product
        and fnmatch.fnmatchcase(function.address, spec.get("address", "*").lower())
    )


def _unfit(function: Function, listed: set[str]) -> str | None:
    """Return why a function cannot be handed out; None when it can."""
    if function.pci_class.startswith(_BRIDGE):
        return "it is a bridge"
    group = function.path / "iommu_group"
    if not group.exists():
        return "it has no IOMMU group (is the IOMMU enabled in firmware and kernel?)"
    others = [
        path.name
        for path in sysfs.entries(group / "devices")
        if path.name not in listed and not (sysfs.read(path / "class") or "").startswith(_BRIDGE)
    ]
    if others:
        return f"its IOMMU group also holds {', '.join(others)}, not listed in [devices] pci_device_spec"
    return None
