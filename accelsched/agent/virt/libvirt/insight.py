# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What libvirt tells of a domain that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lxml import etree

from accelsched import names, wire
from accelsched.agent.virt.libvirt import owned


def interface(connection: Any, server_uuid: str) -> wire.Interface | None:
    """Return a server's interface and the leases that it has; None when it has none.

    :raises libvirt.libvirtError: there is no domain, or no network
    """
    name = owned.mark(connection.lookupByUUIDString(server_uuid)).get("network")
    if name is None:
        return None
    leases = connection.networkLookupByName(name).DHCPLeases(names.mac_address(server_uuid))
    return {"network": name, "addresses": sorted(lease["ipaddr"] for lease in leases)}


def diagnostics(domain: Any, virt_type: str) -> wire.Diagnostics:
    """Return what a domain has done since it was started.

    :raises libvirt.libvirtError: it does not run
    """
    cpus, _ = domain.vcpus()
    disks: list[wire.DiskDetails] = []
    described = etree.fromstring(domain.XMLDesc().encode())
    nics = [
        _nic(address, domain.interfaceStats(address))
        for address in (mac.get("address", "") for mac in described.iterfind("./devices/interface/mac"))
    ]
    for target in described.iterfind("./devices/disk/target"):
        told = domain.blockStats(target.get("dev"))
        disks.append(
            {
                "read_requests": told[0],
                "read_bytes": told[1],
                "write_requests": told[2],
                "write_bytes": told[3],
                "errors_count": max(told[4], 0),  # -1: QEMU does not count them
            }
        )
    return {
        "state": owned.power_of(domain).value,
        "driver": "libvirt",
        "hypervisor": virt_type,
        "uptime": None,
        "cpus": [{"id": number, "time": time_ns} for number, _, time_ns, _ in cpus],
        "disks": disks,
        "nics": nics,
        "memory_mb": domain.maxMemory() // 1024,
    }


def _nic(mac: str, told: Sequence[int]) -> wire.NicDetails:
    """Return what libvirt told of an interface: octets, packets, errors and drops, received and then transmitted."""
    rx_octets, rx_packets, rx_errors, rx_drop, tx_octets, tx_packets, tx_errors, tx_drop = told
    return {
        "mac_address": mac,
        "rx_octets": rx_octets,
        "rx_packets": rx_packets,
        "rx_errors": rx_errors,
        "rx_drop": rx_drop,
        "tx_octets": tx_octets,
        "tx_packets": tx_packets,
        "tx_errors": tx_errors,
        "tx_drop": tx_drop,
    }
