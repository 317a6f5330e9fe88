# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The part of a domain's XML that is about CPUs, NUMA nodes and pages, as pure functions.

https://libvirt.org/formatdomain.html#cpu-tuning, #numa-node-tuning, #memory-backing, #guest-numa-topology
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from accelsched import cpu_sets, wire
from accelsched.cpu_topology import CpuTopology


@dataclass(frozen=True)
class GuestNode:
    """One NUMA node of a server, on its host's node.

    :ivar shared: the server's CPUs that float over the host's ``float_on``
    :ivar pins: the host's CPU by the server's, for the others
    :ivar huge_page_kb: size of its pages, None for ordinary ones
    """

    host_node: int
    shared: tuple[int, ...]
    float_on: frozenset[int]
    pins: Mapping[int, int]
    memory_mb: int
    huge_page_kb: int | None

    @classmethod
    def of(cls, placed: wire.NumaPlacedNode, here: wire.NumaNode) -> GuestNode:
        """Return the node as it was placed on a node of this host."""
        size = placed["page_kb"]
        ordinary = min((int(kb) for kb in here["pages"]), default=None)
        return cls(
            placed["node"],
            tuple(placed["shared_cpus"]),
            frozenset(here["shared_cpus"]),
            {int(cpu): pin for cpu, pin in placed["pins"].items()},
            placed["memory_mb"],
            None if size in (None, ordinary) else size,
        )

    @property
    def cpus(self) -> list[int]:
        """Return the server's CPUs on this node."""
        return sorted({*self.shared, *self.pins})

    @property
    def host_cpus(self) -> frozenset[int]:
        """Return the host's CPUs that they run on."""
        return frozenset(self.pins.values()) | (self.float_on if self.shared else frozenset())


@dataclass(frozen=True)
class Cpus:
    """Where a server's CPUs and memory are.

    :ivar nodes: none for a server that asked for no NUMA nodes
    :ivar float_on: the host's CPUs that such a server's float over; empty for all
    """

    nodes: Sequence[GuestNode] = ()
    float_on: frozenset[int] = frozenset()


NOWHERE = Cpus()
"""On no CPUs and nodes in particular."""


def vcpus(domain: etree._Element, count: int, cpus: Cpus) -> None:
    """Add the number of CPUs, and where they and the memory are on the host."""
    vcpu = etree.SubElement(domain, "vcpu")
    vcpu.text = str(count)
    if cpus.float_on:
        vcpu.set("cpuset", cpu_sets.format(cpus.float_on))
    if not cpus.nodes:
        return
    _memory_backing(domain, cpus.nodes)
    tune = etree.SubElement(domain, "cputune")
    on = {cpu: node.float_on for node in cpus.nodes for cpu in node.shared}
    on |= {cpu: frozenset({pin}) for node in cpus.nodes for cpu, pin in node.pins.items()}
    for cpu, where in sorted(on.items()):
        etree.SubElement(tune, "vcpupin", vcpu=str(cpu), cpuset=cpu_sets.format(where))
    everywhere = frozenset[int]().union(*(node.host_cpus for node in cpus.nodes))
    etree.SubElement(tune, "emulatorpin", cpuset=cpu_sets.format(everywhere))
    numatune = etree.SubElement(domain, "numatune")
    host_nodes = cpu_sets.format(node.host_node for node in cpus.nodes)
    etree.SubElement(numatune, "memory", mode="strict", nodeset=host_nodes)
    for number, node in enumerate(cpus.nodes):
        etree.SubElement(numatune, "memnode", cellid=str(number), mode="strict", nodeset=str(node.host_node))


@dataclass(frozen=True)
class Model:
    """The CPU that guests see.

    :ivar mode: libvirt's; None for all that this host's can do, or that can be emulated
    :ivar name: of mode ``custom``
    :ivar features: by name, whether the guest is to have it
    """

    mode: str | None = None
    name: str | None = None
    features: Mapping[str, bool] = dataclasses.field(default_factory=dict)


EVERYTHING = Model()
"""Whatever the host has or can emulate."""


def model(domain: etree._Element, virt_type: str, model: Model) -> etree._Element:
    """Add the CPU that the guest sees, and return it."""
    everything = "host-passthrough" if virt_type == "kvm" else "maximum"
    cpu = etree.SubElement(domain, "cpu", mode=model.mode or everything)
    if model.name is not None:
        cpu.set("match", "exact")
        etree.SubElement(cpu, "model", fallback="forbid").text = model.name
    for feature, wanted in model.features.items():
        etree.SubElement(cpu, "feature", policy="require" if wanted else "disable", name=feature)
    return cpu


def guest_nodes(cpu: etree._Element, count: int, cpus: Cpus, topology: CpuTopology | None) -> None:
    """Add sockets, cores and threads, and the nodes that the guest sees.

    Where nothing else is asked for, each node is a socket of its own if they have as many CPUs each.
    """
    if topology is None and cpus.nodes:
        sockets = len(cpus.nodes) if len({len(node.cpus) for node in cpus.nodes}) == 1 else 1
        topology = CpuTopology(sockets, count // sockets, 1)
    if topology is not None:
        etree.SubElement(cpu, "topology", {part: str(number) for part, number in topology._asdict().items()})
    if not cpus.nodes:
        return
    numa = etree.SubElement(cpu, "numa")
    for number, node in enumerate(cpus.nodes):
        etree.SubElement(
            numa,
            "cell",
            id=str(number),
            cpus=cpu_sets.format(node.cpus),
            memory=str(node.memory_mb * 1024),
            unit="KiB",
        )


def _memory_backing(domain: etree._Element, nodes: Sequence[GuestNode]) -> None:
    huge = [(number, node.huge_page_kb) for number, node in enumerate(nodes) if node.huge_page_kb is not None]
    if not huge:
        return
    pages = etree.SubElement(etree.SubElement(domain, "memoryBacking"), "hugepages")
    for size in sorted({size for _, size in huge}):
        some = cpu_sets.format(number for number, of_node in huge if of_node == size)
        etree.SubElement(pages, "page", size=str(size), unit="KiB", nodeset=some)
