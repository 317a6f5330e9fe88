# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Where on one host a server's NUMA nodes go: exact, pure.

A server's nodes go to different nodes of the host. Rules, order of preference and the choice of CPUs are Nova's,
without its compute option packing_host_numa_cells_allocation_strategy: nodes with most room come first.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from accelsched.placement.numa.topology import HostNuma, NodeState, PlacedNode, Placement, Ratios, has_room
from accelsched.scheduler.numa.request import ANY, LARGE, SMALL, Affinity, GuestNode, NumaRequest, ThreadPolicy


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that the server would get: its NUMA node, None when nobody knows, and how near it must be."""

    node: int | None
    affinity: Affinity


@dataclasses.dataclass(frozen=True)
class Fit:
    """A way to place a server on a host.

    :ivar distant: devices that are not on its nodes although that was preferred
    """

    placement: Placement
    distant: int


def place(
    host: HostNuma,
    request: NumaRequest,
    ratios: Ratios,
    devices: Sequence[Device] = (),
    device_count: Mapping[int, int] | None = None,
) -> Fit | None:
    """Return the best way to place a server on a host; None when there is none.

    :param devices: what the server would get
    :param device_count: how many devices each of the host's nodes has; a server without devices leaves those nodes
        alone as long as others will do
    """
    table = [[fit_node(state, guest, request, ratios) for state in host] for guest in request.nodes]
    order = _order(host, request, bool(devices), device_count or {})
    best: Fit | None = None
    for near in _near(host, devices):
        matched = _match(table, order, near)
        if matched is not None:
            numbers = {node.node for node in matched}
            fit = Fit(matched, sum(device.node not in numbers for device in devices))
            if best is None or fit.distant < best.distant:
                best = fit
    return best


def fit_node(state: NodeState, guest: GuestNode, request: NumaRequest, ratios: Ratios) -> PlacedNode | None:
    """Return one of a server's nodes as it would be on a host's node; None when it does not fit there."""
    page_kb = None
    if request.page_size is not None:
        page_kb = _page(state, guest.memory_mb, request.page_size)
        if page_kb is None:
            return None
    cpus = pin(state, len(guest.dedicated), request.threads)
    if cpus is None:
        return None
    pins = dict(zip(guest.dedicated, cpus, strict=True))
    held = PlacedNode(state.node.number, guest.shared, pins, guest.memory_mb, page_kb)
    return held if has_room(state, held, ratios, pins=request.pins, floats=request.policy != "dedicated") else None


def pin(state: NodeState, count: int, threads: ThreadPolicy | None) -> list[int] | None:
    """Return free dedicated CPUs of a node, chosen by a thread policy; None when it has too few.

    ``require``: threads of cores, at least two of each; ``isolate``: cores without threads, as Nova has it since hosts
    with threads are ruled out by a trait; otherwise as many threads of each core as the node still has, or any.
    """
    if count > len(state.free):
        return None
    if count == 0:
        return []
    cores = state.free_cores
    if threads == "isolate":
        return [core[0] for core in cores][:count] if state.node.threads == 1 else None
    for each in range(max(map(len, cores)), 1 if threads == "require" else 0, -1):
        usable = [core for core in cores if len(core) >= each]
        if each * len(usable) >= count:
            return list(itertools.chain.from_iterable(core[:each] for core in usable))[:count]
    return None if threads == "require" else list(itertools.chain.from_iterable(cores))[:count]


def _page(state: NodeState, memory_mb: int, asked: int) -> int | None:
    """Return the size in KiB of pages that the memory fits into; None when it does not."""
    sizes = sorted(state.node.pages, reverse=True)
    match asked:
        case _ if asked == SMALL:
            candidates = sizes[-1:]
        case _ if asked == LARGE:
            candidates = sizes[:-1]
        case _ if asked == ANY:
            candidates = sizes
        case _:
            candidates = [asked] if asked in state.node.pages else []
    need_kb = memory_mb * 1024
    return next((size for size in candidates if not need_kb % size and need_kb <= state.free_pages(size) * size), None)


def _order(host: HostNuma, request: NumaRequest, has_devices: bool, device_count: Mapping[int, int]) -> Sequence[int]:
    """Return the host's nodes, those to be preferred first."""
    if len(host) <= len(request.nodes):
        return range(len(host))

    def preference(index: int) -> tuple[int, int, int]:
        state = host[index]
        busy = -len(state.free) if request.pins else state.shared_used
        nearby = device_count.get(state.node.number, 0)
        return (-nearby if has_devices else nearby), busy, -state.free_memory_mb

    return sorted(range(len(host)), key=preference)


@dataclasses.dataclass(frozen=True)
class _Near:
    """Nodes of the host that a server is to be on because of its devices: it must be, or it might be."""

    must: tuple[int, ...]
    might: tuple[int, ...]


def _near(host: HostNuma, devices: Sequence[Device]) -> Iterator[_Near]:
    """Yield the ways in which a server's nodes could be near enough to its devices; nothing when none is."""
    index_of = {state.node.number: index for index, state in enumerate(host)}
    must: set[int] = set()
    might: Counter[int] = Counter()
    sockets: set[int] = set()
    for device in devices:
        index = None if device.node is None else index_of.get(device.node)
        if index is None:
            # Nobody knows where it is. That is near enough for some.
            if device.affinity in ("required", "socket"):
                return
        elif device.affinity in ("required", "legacy"):
            must.add(index)
        else:
            might[index] += 1
            if device.affinity == "socket":
                socket = host[index].node.socket
                if socket is None or any(state.node.socket is None for state in host):
                    return
                sockets.add(socket)
    of_socket = [[i for i, state in enumerate(host) if state.node.socket == socket] for socket in sorted(sockets)]
    wished = tuple(index for index, _ in might.most_common() if index not in must)
    for some in itertools.product(*of_socket):
        yield _Near(tuple(sorted(must.union(some))), tuple(index for index in wished if index not in some))


def _match(table: Sequence[Sequence[PlacedNode | None]], order: Sequence[int], near: _Near) -> Placement | None:
    """Give each of a server's nodes a node of the host that it fits on, all that must be used among them.

    Augmenting paths: what is matched once stays matched, to something, so nodes that must be used come first and those
    that might be next; the server's other nodes find their places then if there is any way at all.

    :param table: how each of the server's nodes would be on each of the host's
    :param order: the host's nodes, those to be preferred first
    """
    guests = range(len(table))
    of_host: dict[int, int] = {}  # the server's node by the host's, and the other way
    of_guest: dict[int, int] = {}

    def use(index: int, tried: set[int]) -> bool:
        for guest in guests:
            if table[guest][index] is None or guest in tried:
                continue
            tried.add(guest)
            if guest not in of_guest or use(of_guest[guest], tried):
                of_guest[guest], of_host[index] = index, guest
                return True
        return False

    def serve(guest: int, tried: set[int]) -> bool:
        for index in order:
            if table[guest][index] is None or index in tried:
                continue
            tried.add(index)
            if index not in of_host or serve(of_host[index], tried):
                of_guest[guest], of_host[index] = index, guest
                return True
        return False

    if not all(index in of_host or use(index, set()) for index in near.must):
        return None
    for index in near.might:
        if index not in of_host:
            use(index, set())
    if not all(guest in of_guest or serve(guest, set()) for guest in guests):
        return None
    placed = (table[guest][of_guest[guest]] for guest in guests)
    return tuple(node for node in placed if node is not None)
