# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A host's NUMA nodes, as far as servers may use them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from accelsched import wire


@dataclass(frozen=True)
class HostNode:
    """A NUMA node as the hardware is.

    :ivar cores: its CPUs by core
    :ivar pages: number of pages by size in KiB, the ordinary ones among them
    """

    number: int
    socket: int | None
    cores: tuple[frozenset[int], ...]
    memory_mb: int
    pages: Mapping[int, int]


def topology(nodes: Iterable[HostNode], *, shared: frozenset[int], dedicated: frozenset[int]) -> wire.NumaTopology:
    """Return the nodes as the control plane wants them.

    :param shared: CPUs over which servers' CPUs float
    :param dedicated: CPUs that one server's CPU gets for itself
    """
    return {"nodes": [_told(node, shared, dedicated) for node in nodes]}


def _told(node: HostNode, shared: frozenset[int], dedicated: frozenset[int]) -> wire.NumaNode:
    offered = [sorted(core & (shared | dedicated)) for core in node.cores]
    cpus = frozenset[int]().union(*node.cores)
    return {
        "node": node.number,
        "socket": node.socket,
        "shared_cpus": sorted(cpus & shared),
        "dedicated_cpus": sorted(cpus & dedicated),
        "cores": sorted(core for core in offered if core),
        "memory_mb": node.memory_mb,
        "pages": {str(size): count for size, count in sorted(node.pages.items())},
    }


def has_threads(told: wire.NumaTopology | None) -> bool:
    """Tell whether any core of a host has several threads."""
    return told is not None and any(len(core) > 1 for node in told["nodes"] for core in node["cores"])


def simulated(count: int, cpus: int, threads: int, memory_mb: int, huge_pages: int) -> Sequence[HostNode]:
    """Return the nodes of a host that does not exist, each a socket of its own; what cannot be divided is left out.

    :param count: of nodes
    :param cpus: of the host
    :param threads: of a core
    :param huge_pages: of 2 MiB, of each node
    """
    each, memory = cpus // count, memory_mb // count
    return [
        HostNode(
            number,
            number,
            tuple(
                frozenset(range(first, min(first + threads, (number + 1) * each)))
                for first in range(number * each, (number + 1) * each, threads)
            ),
            memory,
            {4: (memory - 2 * huge_pages) * 256, **({2048: huge_pages} if huge_pages else {})},
        )
        for number in range(count)
    ]
