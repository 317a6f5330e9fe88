# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Flavors' extra specs as microversion 2.86 has them checked: Nova's names, and what each may say.

One table says it all. A name that Nova has not, in a namespace that it has, is a typing error: nobody would ever obey
it. What has no namespace, or one that is not Nova's, is somebody else's and is let pass.

https://docs.openstack.org/nova/latest/configuration/extra-specs.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import os_resource_classes
import os_traits
from oslo_utils import strutils

from accelsched import errors

Check = Callable[[str], str | None]
"""Returns what a value should have been, None when it is that."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def _anything(_value: str) -> None:
    return None


def _flag(value: str) -> str | None:
    try:
        strutils.bool_from_string(value, strict=True)
    except ValueError:
        return "true or false"
    return None


def _whole(least: int | None = None, most: int | None = None) -> Check:
    def check(value: str) -> str | None:
        number = int(value) if _WHOLE.fullmatch(value) else None
        if number is None:
            return "a whole number"
        if least is not None and number < least:
            return f"{least} or more"
        return f"{most} or less" if most is not None and number > most else None

    return check


def _one_of(*values: str) -> Check:
    return lambda value: None if value in values else f"one of {', '.join(values)}"


def _like(pattern: str, what: str) -> Check:
    return lambda value: None if re.fullmatch(pattern, value) else what


_COUNT = _whole(1)
_AMOUNT = _whole(0)
_CPUS = _like(r"\^?[0-9]+(-[0-9]+)?(,\^?[0-9]+(-[0-9]+)?)*", "a set of CPUs as in 0-3,^2")
_TRAIT = _one_of("required", "forbidden")
_LEVEL = _one_of("custom", "high", "normal", "low")

_HW: dict[str, Check] = {
    "boot_menu": _flag,
    "cpu_cores": _COUNT,
    "cpu_dedicated_mask": _CPUS,
    "cpu_max_cores": _COUNT,
    "cpu_max_sockets": _COUNT,
    "cpu_max_threads": _COUNT,
    "cpu_policy": _one_of("dedicated", "mixed", "shared"),
    "cpu_realtime": _flag,
    "cpu_realtime_mask": _CPUS,
    "cpu_sockets": _COUNT,
    "cpu_thread_policy": _one_of("isolate", "prefer", "require"),
    "cpu_threads": _COUNT,
    "emulator_threads_policy": _one_of("isolate", "share"),
    "ephemeral_encryption": _flag,
    "ephemeral_encryption_format": _one_of("luks", "luksv2", "plain"),
    "hide_hypervisor_id": _flag,
    "locked_memory": _flag,
    # Nova's scheduler reads these two, its own check does not know them.
    "maxphysaddr_bits": _COUNT,
    "maxphysaddr_mode": _one_of("emulate", "passthrough"),
    "mem_encryption": _flag,
    "mem_encryption_model": _one_of("amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx"),
    "mem_page_size": _like(r"large|small|any|[0-9]+([kKMGT]i?)?(b|bit|B)?", "large, small, any or a size as in 2MB"),
    "numa_nodes": _COUNT,
    r"numa_cpus\.[0-9]+": _CPUS,
    r"numa_mem\.[0-9]+": _COUNT,
    "pci_numa_affinity_policy": _one_of("legacy", "preferred", "required", "socket"),
    "pmem": _like(r"[a-zA-Z0-9_]+(,[a-zA-Z0-9_]+)*,?", "labels with commas between"),
    "pmu": _flag,
    "redirected_usb_ports": _whole(0, 15),
    "serial_port_count": _AMOUNT,
    "sound_model": _one_of("ac97", "es1370", "ich6", "ich9", "pcspk", "sb16", "usb", "virtio"),
    "tpm_model": _one_of("tpm-crb", "tpm-tis"),
    "tpm_secret_security": _one_of("deployment", "host", "user"),
    "tpm_version": _one_of("1.2", "2.0"),
    "usb_model": _one_of("nec-xhci", "none", "qemu-xhci"),
    "vif_multiqueue_enabled": _flag,
    "viommu_model": _one_of("auto", "intel", "smmuv3", "virtio"),
    "virtio_packed_ring": _flag,
    "watchdog_action": _one_of("disabled", "none", "pause", "poweroff", "reset"),
}
_QUOTA: dict[str, Check] = {
    "(cpu|disk_io|memory|vif)_(limit|shares_share)": _AMOUNT,
    "(cpu|disk_io|memory|vif)_reservation": _whole(),
    "(cpu|disk_io|memory|vif)_shares_level": _LEVEL,
    "cpu_(period|shares)": _AMOUNT,
    "cpu_quota": _whole(),  # -1: no limit
    "disk_(read|total|write)_(bytes|iops)_sec": _AMOUNT,
    "vif_(inbound|outbound)_(average|burst|peak)": _AMOUNT,
}
# What a host tells of itself, for ComputeCapabilitiesFilter; the second kind has parts.
_CAPABILITIES = (
    *("aggregates", "cell_uuid", "cpu_allocation_ratio", "current_workload", "disk_allocation_ratio"),
    *("disk_available_least", "disk_mb_used", "failed_builds", "free_disk_gb", "free_disk_mb", "free_ram_mb", "host"),
    *("host_ip", "hypervisor_hostname", "hypervisor_type", "hypervisor_version", "id", "local_gb", "local_gb_used"),
    *("mapped", "memory_mb", "memory_mb_used", "num_instances", "num_io_ops", "ram_allocation_ratio", "running_vms"),
    *("service_id", "total_usable_disk_gb", "total_usable_ram_mb", "updated", "uuid", "vcpus", "vcpus_total"),
    "vcpus_used",
)
_WITH_PARTS = (
    *("cpu_info", "instances", "limits", "metrics", "nodename", "numa_topology", "pci_device_pools", "pci_stats"),
    *("stats", "supported_hv_specs", "supported_instances"),
)

_BARE: dict[str, Check] = {"group_policy": _one_of("isolate", "none"), "hide_hypervisor_id": _flag}
# By namespace what may follow its colon; both are regular expressions of the whole.
_NAMESPACES: dict[str, Mapping[str, Check]] = {
    "accel": {
        "device_profile": _anything,
        # Nova has these in Cyborg's profiles only; the scheduler's part of the checks knows what they may say.
        "bitstream_id|function_id": _anything,
    },
    "aggregate_instance_extra_specs": {".+": _anything},
    "capabilities": {"|".join(_CAPABILITIES): _anything, rf"({'|'.join(_WITH_PARTS)})(:\w+)*": _anything},
    "hw": _HW,
    "hw_rng": {"allowed": _flag, "rate_bytes": _AMOUNT, "rate_period": _AMOUNT},
    "hw_video": {"ram_max_mb": _AMOUNT},
    "os": {"secure_boot": _one_of("disabled", "required")},
    "pci_passthrough": {
        "alias": _like(r"[^:,]+:[0-9]+(\s*,\s*[^:,]+:[0-9]+)*", "alias:number, others behind commas"),
    },
    "quota": _QUOTA,
    "resources[a-zA-Z0-9_-]{0,64}": {f"{'|'.join(os_resource_classes.STANDARDS)}|CUSTOM_[A-Z0-9_]+": _whole()},
    "trait[a-zA-Z0-9_-]{0,64}": {f"{'|'.join(os_traits.get_traits())}|CUSTOM_[A-Z0-9_]+": _TRAIT},
    "vmware": {"hw_version|storage_policy": _anything},
}


def check(name: str, value: str) -> None:
    """Check one extra spec.

    :raises accelsched.errors.InvalidError: when Nova has no such name in its namespaces, or the value does not fit
    """
    found = _check_of(name)
    wanted = None if found is None else found(value)
    if wanted is not None:
        raise errors.InvalidError(f"Validation failed; extra spec {name}: '{value}' is not {wanted}.")


def _check_of(name: str) -> Check | None:
    """Return the check of a name, None when there is nothing to check.

    :raises accelsched.errors.InvalidError: when there is no such name
    """
    namespace, colon, key = name.partition(":")
    if not colon:
        return _BARE.get(name)
    known = next((keys for pattern, keys in _NAMESPACES.items() if re.fullmatch(pattern, namespace)), None)
    if known is None:
        return None
    for pattern, check_ in known.items():
        if re.fullmatch(pattern, key):
            return check_
    raise errors.InvalidError(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")
