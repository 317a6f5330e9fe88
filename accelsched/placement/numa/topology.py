# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A host's NUMA nodes and what servers hold of them, as values.

Two kinds of CPUs, as in Nova: *shared* ones, over which the CPUs of many servers float, and *dedicated* ones, each held
by one CPU of one server. Servers without NUMA wishes hold nothing here: the kernel puts them where there is room.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jsonschema

from accelsched import cpu_sets, errors, wire

_MOST_NODES = 64
_NUMBER = {"type": "integer", "minimum": 0, "maximum": 2**53}
_CPUS = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": cpu_sets.MOST - 1},
    "uniqueItems": True,
    "maxItems": cpu_sets.MOST,
}
_TOPOLOGY = jsonschema.Draft202012Validator(
    {
        "type": "object",
        "properties": {
            "nodes": {
                "type": "array",
                "minItems": 1,
                "maxItems": _MOST_NODES,
                "items": {
                    "type": "object",
                    "properties": {
                        "node": {"type": "integer", "minimum": 0, "maximum": 1023},
                        "socket": {"type": ["integer", "null"], "minimum": 0},
                        "shared_cpus": _CPUS,
                        "dedicated_cpus": _CPUS,
                        "cores": {"type": "array", "maxItems": cpu_sets.MOST, "items": {**_CPUS, "minItems": 1}},
                        "memory_mb": _NUMBER,
                        "pages": {
                            "type": "object",
                            "maxProperties": 16,
                            "patternProperties": {"^[1-9][0-9]{0,11}$": _NUMBER},
                            "additionalProperties": False,
                        },
                    },
                    "required": ["node", "shared_cpus", "dedicated_cpus", "cores", "memory_mb", "pages"],
                },
            }
        },
        "required": ["nodes"],
    }
)


@dataclasses.dataclass(frozen=True)
class Node:
    """What a host's NUMA node has for servers.

    :ivar cores: its dedicated CPUs by core: CPUs of one core are threads that share it
    :ivar threads: CPUs that a core has at most, shared and dedicated ones
    :ivar pages: pages for servers by their size in KiB, the smallest among them; empty where the host does not tell
    """

    number: int
    socket: int | None
    shared: frozenset[int]
    dedicated: frozenset[int]
    cores: tuple[frozenset[int], ...]
    threads: int
    memory_mb: int
    pages: Mapping[int, int]

    @property
    def smallest_page(self) -> int | None:
        """Return the size in KiB of its ordinary pages."""
        return min(self.pages, default=None)


@dataclasses.dataclass(frozen=True)
class PlacedNode:
    """A node of a server on a node of its host.

    :ivar shared: the server's CPUs that float over the host's node
    :ivar pins: the host's CPU by the server's, for its dedicated ones
    :ivar page_kb: size of its pages in KiB; None when it did not ask for a size
    """

    node: int
    shared: tuple[int, ...]
    pins: Mapping[int, int]
    memory_mb: int
    page_kb: int | None

    def to_wire(self) -> wire.NumaPlacedNode:
        """Return it as agents and the database have it."""
        return {
            "node": self.node,
            "shared_cpus": list(self.shared),
            "pins": {str(cpu): pin for cpu, pin in self.pins.items()},
            "memory_mb": self.memory_mb,
            "page_kb": self.page_kb,
        }

    @classmethod
    def of(cls, told: wire.NumaPlacedNode) -> PlacedNode:
        """Return what :meth:`to_wire` wrote."""
        pins = {int(cpu): pin for cpu, pin in told["pins"].items()}
        return cls(told["node"], tuple(told["shared_cpus"]), pins, told["memory_mb"], told["page_kb"])


Placement = tuple[PlacedNode, ...]
"""Where a server's nodes are, in their order."""


@dataclasses.dataclass(frozen=True)
class NodeState:
    """A host's node and what of it is held.

    :ivar pinned: dedicated CPUs that are held
    :ivar shared_used: CPUs of servers that float over it
    :ivar pages_used: pages held, by size in KiB
    """

    node: Node
    pinned: frozenset[int] = frozenset()
    shared_used: int = 0
    memory_used_mb: int = 0
    pages_used: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @cached_property
    def free(self) -> frozenset[int]:
        """Return the dedicated CPUs that nobody holds."""
        return self.node.dedicated - self.pinned

    @cached_property
    def free_cores(self) -> tuple[tuple[int, ...], ...]:
        """Return the free dedicated CPUs by core, of cores that have any."""
        return tuple(tuple(sorted(core & self.free)) for core in self.node.cores if core & self.free)

    @property
    def free_memory_mb(self) -> int:
        """Return the memory that nobody holds; below zero where it is oversold."""
        return self.node.memory_mb - self.memory_used_mb

    def free_pages(self, size_kb: int) -> int:
        """Return how many pages of a size nobody holds."""
        return self.node.pages[size_kb] - self.pages_used.get(size_kb, 0)

    def with_held(self, held: PlacedNode) -> NodeState:
        """Return the node's state with one more server's node on it.

        Memory of a server that asked for no page size is of the smallest pages, as in Nova.
        """
        pages = Counter(self.pages_used)
        size = held.page_kb or self.node.smallest_page
        if size is not None:
            pages[size] += -(-held.memory_mb * 1024 // size)
        return NodeState(
            self.node,
            self.pinned | frozenset(held.pins.values()),
            self.shared_used + len(held.shared),
            self.memory_used_mb + held.memory_mb,
            pages,
        )


HostNuma = tuple[NodeState, ...]
"""The NUMA nodes of a host as they are."""


@dataclasses.dataclass(frozen=True)
class Ratios:
    """How far a host's shared CPUs and its memory are oversold."""

    cpu: float = 1.0
    ram: float = 1.0


def has_room(state: NodeState, held: PlacedNode, ratios: Ratios, *, pins: bool, floats: bool) -> bool:
    """Tell whether a node can take one more server's node as it is: CPUs, pages, memory.

    :param pins: whether the server has dedicated CPUs on any node; then memory is not oversold to it, as in Nova
    :param floats: whether it has shared CPUs on any node; then bounds of what is oversold count for all of its nodes
    """
    node = state.node
    if not state.free.issuperset(held.pins.values()):
        return False
    size = held.page_kb or node.smallest_page
    if size is None:
        enough = held.memory_mb <= (state.free_memory_mb if pins else node.memory_mb)
    elif size not in node.pages or held.memory_mb * 1024 % size:
        enough = False
    else:
        # Pages of a size that was asked for are locked in memory, so they are never oversold.
        pages = state.free_pages(size) if pins or held.page_kb is not None else node.pages[size]
        enough = held.memory_mb * 1024 <= pages * size
    if not floats:
        return enough
    # However far CPUs are oversold, a server never gets one twice.
    return (
        enough
        and len(held.shared) <= len(node.shared)
        and state.shared_used + len(held.shared) <= len(node.shared) * ratios.cpu
        and state.memory_used_mb + held.memory_mb <= node.memory_mb * ratios.ram
    )


def parse(told: Any) -> tuple[Node, ...]:
    """Return a host's nodes as its agent tells them.

    :param told: a :class:`accelsched.wire.NumaTopology`
    :raises accelsched.errors.InvalidError: when that makes no sense
    """
    error = jsonschema.exceptions.best_match(_TOPOLOGY.iter_errors(told))
    if error is not None:
        where = "/".join(str(step) for step in error.absolute_path)
        raise errors.InvalidError(f"NUMA topology: {where}: {error.message[:200]}")
    nodes = tuple(_node(one) for one in told["nodes"])
    if len({node.number for node in nodes}) < len(nodes):
        raise errors.InvalidError("NUMA topology: two nodes have the same number")
    cpus = Counter(cpu for node in nodes for kind in (node.shared, node.dedicated) for cpu in kind)
    if twice := [cpu for cpu, times in cpus.items() if times > 1]:
        raise errors.InvalidError(f"NUMA topology: CPU {min(twice)} is there twice")
    return nodes


def _node(told: wire.NumaNode) -> Node:
    dedicated = frozenset(told["dedicated_cpus"])
    cores = [frozenset(core) for core in told["cores"]]
    # A CPU that is in no core is one by itself.
    cores += [frozenset({cpu}) for cpu in sorted(dedicated.difference(*cores))]
    return Node(
        number=told["node"],
        socket=told.get("socket"),
        shared=frozenset(told["shared_cpus"]),
        dedicated=dedicated,
        cores=tuple(sorted((core & dedicated for core in cores if core & dedicated), key=min)),
        threads=max((len(core) for core in cores), default=1),
        memory_mb=told["memory_mb"],
        pages={int(size): count for size, count in told["pages"].items()},
    )


def state(nodes: Sequence[Node], placements: Sequence[Placement]) -> HostNuma:
    """Return a host's nodes with what some servers hold of them."""
    now = tuple(NodeState(node) for node in nodes)
    for placement in placements:
        now = with_held(now, placement)
    return now


def with_held(host: HostNuma, placement: Placement) -> HostNuma:
    """Return a host's state with one more server on it; what the server has on nodes that are gone counts nowhere."""
    by_number = {one.node.number: one for one in host}
    for held in placement:
        if held.node in by_number:
            by_number[held.node] = by_number[held.node].with_held(held)
    return tuple(by_number.values())
