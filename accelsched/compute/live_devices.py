# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which devices can go with a server that runs, and what the hosts must be for that.

===========  =====================================  ==============================================================
handed out   what it is                             takes, on both hosts
===========  =====================================  ==============================================================
mdev         mediated device (vGPU)                 libvirt 8.6, QEMU 8.1, Linux 5.18
vfio         vGPU on a virtual function, no mdev    libvirt 10.0, QEMU 8.2.2, Linux 5.18
pci          whole PCI function                     the same, ``live_migratable`` in its ``device_spec``, and a flavor
                                                    that asks for that
simulated    nothing real                           nothing
others       FPGA region                            cannot
===========  =====================================  ==============================================================
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import os_traits

from accelsched import names, wire
from accelsched.db.compute import Host, Server


@dataclass(frozen=True)
class Needs:
    """What a way of handing out devices takes on both hosts; versions as libvirt encodes them."""

    libvirt: int
    qemu: int
    kernel: tuple[int, int]


NEEDS = {
    "mdev": Needs(libvirt=8_006_000, qemu=8_001_000, kernel=(5, 18)),
    "vfio": Needs(libvirt=10_000_000, qemu=8_002_002, kernel=(5, 18)),
    "pci": Needs(libvirt=10_000_000, qemu=8_002_002, kernel=(5, 18)),
    "simulated": None,
}
_VGPUS = frozenset({"mdev", "vfio"})
_TYPE = f"{names.vgpu_type_trait('')}_"
_CLASS = f"{names.vgpu_class('')}_"
_CALLED = {"mdev": "a mediated device", "vfio": "a vGPU on a virtual function", "pci": "a PCI function"}


def held(server: Server) -> list[Mapping[str, Any]]:
    """Return the devices that a server has."""
    return [device for device in server.devices if device["provider_uuid"] != server.node_uuid]


def ways(server: Server, host: Host) -> frozenset[str]:
    """Return how a server's devices are handed out; empty text for one whose host does not tell."""
    return frozenset(_reported(host, device).get("how", "") for device in held(server))


def refusal(server: Server, host: Host, asked: Collection[str]) -> str | None:
    """Return which of a server's devices cannot go with it, wherever it goes; None when all can.

    :param host: that it is on
    :param asked: request groups whose devices its flavor wants to be live-migratable
    """
    for device in held(server):
        provider = _reported(host, device)
        way = provider.get("how", "")
        if way not in NEEDS:
            return f"the server has {_told(device)}, and what is in that device cannot be carried over"
        if way == "pci" and os_traits.HW_PCI_LIVE_MIGRATABLE not in provider.get("traits", ()):
            return (
                f"the server has {_told(device)}, a whole PCI function; what is in it can be carried over only where "
                "its device_spec says live_migratable"
            )
        if way == "pci" and device["group"] not in asked:
            return (
                f"the server has {_told(device)}, a whole PCI function, and its flavor does not ask for one that is "
                f"live-migratable: trait{device['group']}:{os_traits.HW_PCI_LIVE_MIGRATABLE}=required"
            )
    return None


def unsaved(server: Server, host: Host) -> str | None:
    """Return why what is in a server's devices cannot be saved on its host's disk; None when it can.

    QEMU saves a device as it sends it to another host, so it takes the same. A device of which an agent of an earlier
    release does not tell how it is handed out is left to that agent, which refuses as well.

    :param host: that it is on
    """
    told = {_told(device): _reported(host, device) for device in held(server)}
    known = {text: provider for text, provider in told.items() if "how" in provider}
    for text, provider in known.items():
        way = provider["how"]
        if way not in NEEDS or (way == "pci" and os_traits.HW_PCI_LIVE_MIGRATABLE not in provider.get("traits", ())):
            return f"the server has {text}, and what is in that device cannot be saved"
    return too_old(host, {provider["how"] for provider in known.values()})


def vgpu_types(server: Server, host: Host) -> dict[str, frozenset[str]]:
    """Return the traits of the vGPU types that a server has, by request group: what runs on one type goes to no other.

    The class does not say it: on most GPUs it is ``VGPU`` whatever the type.

    :param host: that it is on
    """
    found: dict[str, set[str]] = defaultdict(set)
    for device in held(server):
        provider = _reported(host, device)
        if provider.get("how", "") in _VGPUS:
            found[device["group"]] |= _types_of(device, provider)
    return {group: frozenset(types) for group, types in found.items()}


def _types_of(device: Mapping[str, Any], provider: Mapping[str, Any]) -> frozenset[str]:
    """Return the traits of the types that were given out of a device; of several, each has a class of its own.

    Which type a class stands for that an operator named, its agent alone knows; the host then finds out by itself.
    """
    offered = _vgpu_traits(provider)
    if len(offered) <= 1:
        return offered
    named = (resource.removeprefix(_CLASS) for resource in device["resources"] if resource.startswith(_CLASS))
    return offered & {f"{_TYPE}{name}" for name in named}


def _vgpu_traits(provider: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(trait for trait in provider.get("traits", ()) if trait.startswith(_TYPE))


def lacks(host: Host, types: Mapping[str, Collection[str]]) -> str | None:
    """Return which vGPU types a host has on none of its devices; None when it has all.

    :param types: traits, by request group
    """
    there = frozenset[str]().union(*map(_vgpu_traits, host.reported.values()))
    missing = sorted(frozenset[str]().union(*types.values()) - there)
    if not missing:
        return None
    named = ", ".join(trait.removeprefix(_TYPE) for trait in missing)
    has = ", ".join(sorted(trait.removeprefix(_TYPE) for trait in there)) or "none"
    return f"host {host.name} has no device of vGPU type {named}, which the server's is; it has {has}"


def too_old(host: Host, ways_: Collection[str]) -> str | None:
    """Return which part of a host is too old to take or give devices while they are used; None when none is."""
    told = host.hypervisor
    for way in sorted(ways_):
        needs = NEEDS.get(way)
        if needs is None:
            continue
        libvirt, qemu, kernel = told.get("libvirt_version", 0), told["version"], _kernel(told)
        for part, found, needed in (
            ("libvirt", _text(libvirt), _text(needs.libvirt) if libvirt < needs.libvirt else None),
            ("QEMU", _text(qemu), _text(needs.qemu) if qemu < needs.qemu else None),
            ("Linux", ".".join(map(str, kernel)), ".".join(map(str, needs.kernel)) if kernel < needs.kernel else None),
        ):
            if needed is not None:
                return f"host {host.name} has {part} {found}, and to carry {_CALLED[way]} over takes {part} {needed}"
    return None


def _reported(host: Host, device: Mapping[str, Any]) -> wire.ProviderReport | dict[str, Any]:
    provider: dict[str, Any] = host.reported.get(device["provider_uuid"], {})
    return provider


def _kernel(told: Mapping[str, Any]) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", told.get("kernel", ""))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _text(version: int) -> str:
    """Return a version as people write it; trailing zeros but one are left out."""
    parts: Sequence[int] = (version // 1_000_000, version // 1_000 % 1_000, version % 1_000)
    return ".".join(map(str, parts if parts[2] else parts[:2]))


def _told(device: Mapping[str, Any]) -> str:
    amounts = ", ".join(f"{amount} {name}" for name, amount in sorted(device["resources"].items()))
    return f"{amounts} of {device['provider_name']}"
