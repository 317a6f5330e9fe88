# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A host's picture of itself, as the control plane wants it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import os_resource_classes as orc
import os_traits
from oslo_config import cfg

from accelsched import names, wire
from accelsched.agent.devices.base import Device
from accelsched.agent.virt.base import Capacity


def host_providers(
    conf: cfg.ConfigOpts,
    host: str,
    node_uuid: str,
    *,
    capacity: Capacity,
    traits: frozenset[str],
    devices: Iterable[Device],
) -> list[wire.ProviderReport]:
    """Return the resource providers of a host: itself first, then its devices by name.

    :param conf: ``[agent]`` says what is reserved and how far it is oversold
    :param node_uuid: uuid of the root provider
    :param traits: of the host, from its virt driver
    """
    root: wire.ProviderReport = {
        "uuid": node_uuid,
        "name": host,
        "parent": None,
        "inventories": _host_inventories(conf, capacity),
        "traits": sorted(traits | {os_traits.COMPUTE_NODE}),
    }
    return [root] + [_device(node_uuid, device) for device in sorted(devices, key=lambda device: device.name)]


def _device(node_uuid: str, device: Device) -> wire.ProviderReport:
    report: wire.ProviderReport = {
        "uuid": names.provider_uuid(node_uuid, device.name),
        "name": device.name,
        "parent": node_uuid,
        "inventories": dict(device.inventories),
        "traits": sorted(device.traits),
        "how": device.how,
    }
    if device.capacity_rule is not None:
        report["capacity_rule"] = dict(device.capacity_rule)
    if device.fault is not None:
        report["fault"] = device.fault
    return report


def _host_inventories(conf: cfg.ConfigOpts, capacity: Capacity) -> dict[str, wire.InventoryReport]:
    options = conf.agent
    return {
        resource_class: {
            "total": total,
            "reserved": min(reserved, total),
            "min_unit": 1,
            "max_unit": total,
            "step_size": 1,
            "allocation_ratio": ratio,
        }
        for resource_class, total, reserved, ratio in (
            (orc.VCPU, capacity.cpus, options.reserved_host_cpus, options.cpu_allocation_ratio),
            (orc.PCPU, capacity.dedicated_cpus, 0, 1.0),
            (orc.MEMORY_MB, capacity.memory_mb, options.reserved_host_memory_mb, options.ram_allocation_ratio),
            (
                orc.DISK_GB,
                capacity.disk_gb,
                math.ceil(options.reserved_host_disk_mb / 1024),
                options.disk_allocation_ratio,
            ),
        )
        if total > 0
    }
