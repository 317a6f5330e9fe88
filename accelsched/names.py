# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Naming rules that hold in every layer.

* A physical function's resource provider is named as Nova names it: ``HOST_pci_0000_41_00_0``.
* A custom trait or resource class is ``CUSTOM_`` and the upper-cased name, every run of other characters one ``_``.
* A mediated device made here carries a visible mark: its UUID is of version 8 (RFC 9562, section 5.8) and starts
  with ``acce15ed``. The rest is a digest of what it is for, so making it twice makes the same one.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable

import os_resource_classes
import os_traits

STANDARD = frozenset({*os_resource_classes.STANDARDS, *os_traits.get_traits()})
"""Resource classes and traits that are not custom."""

LINK_PARTITION = "CUSTOM_LINK_PARTITION_"
PCIE_ROOT = "CUSTOM_PCIE_ROOT_"
_NUMA_NODE = "CUSTOM_NUMA_NODE_"

MOVES = "CUSTOM_ACCELSCHED_MOVES"
"""Trait of hosts whose agent can hand a server over to another host's, or to itself in another size."""

MOVES_LIVE = "CUSTOM_ACCELSCHED_MOVES_LIVE"
"""Trait of hosts whose agent can hand a server over, or take it, while it runs."""

DEVICE_DISABLED = "CUSTOM_ACCELSCHED_DEVICE_DISABLED"
"""Trait of devices that an operator lets nothing new onto."""

DEVICE_LOST = "CUSTOM_ACCELSCHED_DEVICE_LOST"
"""Trait of devices that are allocated and that their agent does not see any more."""

DEVICE_UNHEALTHY = "CUSTOM_ACCELSCHED_DEVICE_UNHEALTHY"
"""Trait of devices that their agent sees, and that something is wrong with: they do not answer."""

RPC_1_1 = "CUSTOM_ACCELSCHED_RPC_1_1"
"""Trait of hosts whose agent understands at least version 1.1 of :mod:`accelsched.wire`."""

MDEV_UUID_MARK = "acce15ed"

# The namespace of every name-based uuid made here (RFC 9562, section 5.5).
_NAMESPACE = uuid.UUID("6b9e7f0c-0d5e-5b0e-9c39-acce15ed0000")

_PCI_ADDRESS = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_CUSTOM_MAX = 255


def custom(name: str) -> str:
    """Return the ``CUSTOM_`` trait or resource class for a free-form name.

    :param name: e.g. ``labgpu-1`` or ``GRID T4-8Q``
    :raises ValueError: when nothing usable is left of the name
    """
    cleaned = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    if not cleaned:
        raise ValueError(f"no trait or resource class can be made of {name!r}")
    return f"CUSTOM_{cleaned}"[:_CUSTOM_MAX]


def standard_or_custom(name: str) -> str:
    """Return a class or trait as it is when it is a standard one, else the custom one of that name, as in Nova.

    :param name: ``pgpu``, ``fast``, ``CUSTOM_FAST``
    """
    return name.upper() if name.upper() in STANDARD else custom(name.upper().removeprefix("CUSTOM_"))


def vgpu_type_trait(type_id: str) -> str:
    """Return the trait that says a provider offers a vGPU type, e.g. ``CUSTOM_VGPU_TYPE_NVIDIA_471``."""
    return custom(f"VGPU_TYPE_{type_id}")


def vgpu_class(type_id: str) -> str:
    """Return the resource class of a vGPU type on a GPU that offers several, e.g. ``CUSTOM_VGPU_NVIDIA_471``."""
    return custom(f"VGPU_{type_id}")


def vgpu_framebuffer_trait(mebibytes: int) -> str:
    """Return the trait of GPUs that offer vGPUs with so much memory, e.g. ``CUSTOM_VGPU_FRAMEBUFFER_8192_MIB``."""
    return f"CUSTOM_VGPU_FRAMEBUFFER_{mebibytes}_MIB"


def numa_node_trait(node: int) -> str:
    """Return the trait that says that a device is on a NUMA node of its host, e.g. ``CUSTOM_NUMA_NODE_1``."""
    return f"{_NUMA_NODE}{node}"


def numa_node_of(traits: Iterable[str]) -> int | None:
    """Return the NUMA node that a device's traits say it is on; None when they do not say."""
    nodes = [trait.removeprefix(_NUMA_NODE) for trait in traits if trait.startswith(_NUMA_NODE)]
    return int(nodes[0]) if len(nodes) == 1 and nodes[0].isdecimal() else None


def link_partition_trait(number: int) -> str:
    """Return the trait of devices of a host that fast links join, e.g. ``CUSTOM_LINK_PARTITION_0``."""
    return f"{LINK_PARTITION}{number}"


def pcie_root_trait(root: str) -> str:
    """Return the trait of devices below a PCIe host bridge, for 0000:40 ``CUSTOM_PCIE_ROOT_0000_40``."""
    return custom(f"PCIE_ROOT_{root}")


def pci_vendor_trait(vendor: str) -> str:
    """Return the trait of PCI devices of a vendor, e.g. ``CUSTOM_PCI_VENDOR_10DE``."""
    return custom(f"PCI_VENDOR_{vendor}")


def pci_device_trait(vendor: str, product: str) -> str:
    """Return the trait of PCI devices of a model, e.g. ``CUSTOM_PCI_DEVICE_10DE_20B0``."""
    return custom(f"PCI_DEVICE_{vendor}_{product}")


def pci_type_trait(device_type: str) -> str:
    """Return the trait of PCI devices of one of Nova's types: type-PCI, type-PF (has SR-IOV), type-VF."""
    return custom(f"PCI_{device_type}")


def pci_class(vendor: str, product: str) -> str:
    """Return the resource class of PCI functions of a model that was given no other, e.g. ``CUSTOM_PCI_10DE_20B0``."""
    return custom(f"PCI_{vendor}_{product}")


def fpga_vendor_trait(vendor: str) -> str:
    """Return the trait of FPGA regions on cards of a vendor, e.g. ``CUSTOM_FPGA_INTEL``."""
    return custom(f"FPGA_{vendor}")


def fpga_region_trait(vendor: str, interface_id: str) -> str:
    """Return the trait of FPGA regions with an interface, which a bitstream is made for.

    :param interface_id: a uuid, e.g. to ``CUSTOM_FPGA_REGION_ID_INTEL_9926AB6D_6C92_5A68_AABC_A7D84C545738``
    """
    return custom(f"FPGA_REGION_ID_{vendor}_{interface_id}")


def fpga_function_trait(vendor: str, function_id: str) -> str:
    """Return the trait of FPGA regions that have a function, ``CUSTOM_FPGA_FUNCTION_ID_<vendor>_<uuid>``."""
    return custom(f"FPGA_FUNCTION_ID_{vendor}_{function_id}")


FPGA_NOT_SCRUBBED = "CUSTOM_FPGA_NOT_SCRUBBED"
"""Trait of FPGA regions that still hold what a former server left there, because scrubbing them failed."""


def pci_provider(host: str, address: str) -> str:
    """Return the name of the resource provider of a PCI function.

    :param address: full PCI address in lower case, ``0000:41:00.0``
    """
    if not is_pci_address(address):
        raise ValueError(f"{address!r} is not a full PCI address such as 0000:41:00.0")
    return f"{host}_pci_{re.sub('[:.]', '_', address)}"


def is_pci_address(text: str) -> bool:
    """Tell whether the text is a full PCI address in lower case."""
    return _PCI_ADDRESS.match(text) is not None


def provider_uuid(node_uuid: str, name: str) -> str:
    """Return the uuid of a child provider: the same for the same host and name, on every report."""
    return str(uuid.uuid5(_NAMESPACE, f"provider/{node_uuid}/{name}"))


def mdev_uuid(server_uuid: str, provider_uuid_: str, group: str, index: int) -> str:
    """Return the uuid of the mediated device that serves one unit of one request group of a server."""
    digest = hashlib.sha256(f"mdev/{server_uuid}/{provider_uuid_}/{group}/{index}".encode()).hexdigest()
    # 8: version "custom"; a: variant of RFC 9562.
    return f"{MDEV_UUID_MARK}-{digest[0:4]}-8{digest[4:7]}-a{digest[7:10]}-{digest[10:22]}"


def is_own_mdev(uuid_: str) -> bool:
    """Tell whether a mediated device carries our mark; one that does not is never touched."""
    return (
        re.fullmatch(rf"{MDEV_UUID_MARK}-[0-9a-f]{{4}}-8[0-9a-f]{{3}}-a[0-9a-f]{{3}}-[0-9a-f]{{12}}", uuid_) is not None
    )


def mac_address(server_uuid: str) -> str:
    """Return the MAC address of a server's interface: the same on every host that the server is ever on.

    Locally administered (IEEE 802, second bit of the first octet), and not ``fe``, which libvirt keeps for its own end.
    """
    digest = hashlib.sha256(f"mac/{server_uuid}".encode()).hexdigest()
    return ":".join(["02", *(digest[start : start + 2] for start in range(0, 10, 2))])


def host_alias(project_id: str, host: str) -> str:
    """Return a name for a host that tells a project no more than whether two servers share one: Nova's ``hostId``."""
    return hashlib.sha224(f"{project_id}{host}".encode()).hexdigest() if host else ""
