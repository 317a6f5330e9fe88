# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts with NUMA nodes for tests: small ones by hand, any by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from accelsched import wire
from accelsched.placement.numa import topology
from accelsched.placement.numa.topology import HostNuma, NodeState
from accelsched.scheduler.numa.request import ANY, LARGE, SMALL, GuestNode, NumaRequest


def told(
    nodes: int = 2,
    cores: int = 4,
    threads: int = 2,
    *,
    shared: int = 0,
    memory_mb: int = 16384,
    huge_pages: int = 0,
) -> wire.NumaTopology:
    """Return a host's nodes as its agent tells them, each a socket, CPUs numbered through.

    :param shared: cores of each node whose CPUs are shared; the others are dedicated
    :param huge_pages: of 2 MiB, of each node
    """
    described: list[wire.NumaNode] = []
    for node in range(nodes):
        first = node * cores * threads
        grouped = [list(range(first + core * threads, first + (core + 1) * threads)) for core in range(cores)]
        described.append(
            {
                "node": node,
                "socket": node,
                "shared_cpus": sorted(cpu for core in grouped[:shared] for cpu in core),
                "dedicated_cpus": sorted(cpu for core in grouped[shared:] for cpu in core),
                "cores": grouped,
                "memory_mb": memory_mb,
                "pages": {"4": (memory_mb - 2 * huge_pages) * 256, **({"2048": huge_pages} if huge_pages else {})},
            }
        )
    return {"nodes": described}


def state(**about: Any) -> HostNuma:
    """Return a host that nobody is on; see :func:`told`."""
    return topology.state(topology.parse(told(**about)), ())


@st.composite
def hosts(draw: st.DrawFn) -> HostNuma:
    """Draw a host: up to four nodes, cores of any threads, some CPUs shared, pages or none, some of it held."""
    threads = draw(st.integers(1, 3))
    paged = draw(st.booleans())
    described: list[wire.NumaNode] = []
    cpu = 0
    for node in range(draw(st.integers(1, 4))):
        grouped = [
            list(range(cpu + core * threads, cpu + (core + 1) * threads)) for core in range(draw(st.integers(1, 4)))
        ]
        cpu += len(grouped) * threads
        every = [one for core in grouped for one in core]
        kinds = draw(st.lists(st.sampled_from("sd-"), min_size=len(every), max_size=len(every)))
        memory = draw(st.integers(1, 8)) * 256
        huge = draw(st.integers(0, memory // 4)) if paged else 0
        described.append(
            {
                "node": node,
                "socket": draw(st.sampled_from([0, 1])),
                "shared_cpus": [one for one, kind in zip(every, kinds, strict=True) if kind == "s"],
                "dedicated_cpus": [one for one, kind in zip(every, kinds, strict=True) if kind == "d"],
                "cores": grouped,
                "memory_mb": memory,
                "pages": {"4": (memory - 2 * huge) * 256, "2048": huge, "1048576": 0} if paged else {},
            }
        )
    return tuple(draw(held(node)) for node in topology.parse({"nodes": described}))


@st.composite
def held(draw: st.DrawFn, node: topology.Node) -> NodeState:
    """Draw what is held of a node."""
    pinned = draw(st.frozensets(st.sampled_from(sorted(node.dedicated)))) if node.dedicated else frozenset()
    used = draw(st.integers(0, node.memory_mb))
    pages = {size: draw(st.integers(0, total)) for size, total in node.pages.items()}
    return NodeState(node, pinned, draw(st.integers(0, 6)), used, pages)


@st.composite
def requests(draw: st.DrawFn) -> NumaRequest:
    """Draw a request: up to three nodes, alike or not."""
    policy = draw(st.sampled_from(["shared", "dedicated", "mixed"]))
    nodes, cpu = [], 0
    alike = draw(st.booleans())
    for number in range(draw(st.integers(1, 3))):
        if not number or not alike:
            shared = 0 if policy == "dedicated" else draw(st.integers(policy == "shared", 4))
            dedicated = 0 if policy == "shared" else draw(st.integers(not shared, 5))
            memory = draw(st.sampled_from([1, 64, 256, 300, 512]))
        nodes.append(
            GuestNode(tuple(range(cpu, cpu + shared)), tuple(range(cpu + shared, cpu + shared + dedicated)), memory)
        )
        cpu += shared + dedicated
    threads = None if policy == "shared" else draw(st.sampled_from([None, "prefer", "require", "isolate"]))
    page = draw(st.sampled_from([None, None, SMALL, LARGE, ANY, 4, 2048, 1048576]))
    return NumaRequest(tuple(nodes), policy, threads, page)  # type: ignore[arg-type]
