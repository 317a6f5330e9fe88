# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which hosts could take a server's NUMA nodes, for a whole fleet at once: what :mod:`fit` says, without devices."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np

from accelsched.placement.columns import NONE, Floats, Ints, Mask
from accelsched.placement.numa.columns import NumaColumns
from accelsched.scheduler.numa.request import ANY, LARGE, SMALL, GuestNode, NumaRequest

_MOST_KINDS = 6


def mask(
    columns: NumaColumns,
    rows: Ints,
    request: NumaRequest,
    cpu_ratio: Floats,
    ram_ratio: Floats,
    *,
    among: Mask | None = None,
) -> Mask:
    """Tell which hosts have room for all of a server's nodes, each on another of theirs: bool[len(rows)].

    :param rows: of the hosts in the columns, NONE for one that has not told its nodes, which never fits
    :param cpu_ratio: how far each host's shared CPUs are oversold, float64[len(rows)]
    :param ram_ratio: how far its memory is, float64[len(rows)]
    :param among: nodes that may be used, bool[len(rows), most nodes of a host]; all when None
    """
    usable = (rows != NONE)[:, None] if among is None else among & (rows != NONE)[:, None]
    kinds = Counter(_kind(guest) for guest in request.nodes)
    example = {_kind(guest): guest for guest in request.nodes}
    room = {kind: fits(columns, rows, guest, request, cpu_ratio, ram_ratio) & usable for kind, guest in example.items()}
    if len(room) == 1:
        ((kind, times),) = kinds.items()
        enough: Mask = room[kind].sum(axis=1) >= times
        return enough
    # Different nodes: by Hall's theorem all find a place if no set of kinds wants more than the places that fit it.
    result: Mask = rows != NONE
    names = list(kinds)
    # Of more kinds than anybody has hosts for, not all sets are looked at: what is let through is tried in earnest.
    sizes = range(1, len(names) + 1) if len(names) <= _MOST_KINDS else (1, len(names))
    for some in itertools.chain.from_iterable(itertools.combinations(names, size) for size in sizes):
        wanted = sum(kinds[name] for name in some)
        result &= np.logical_or.reduce([room[name] for name in some]).sum(axis=1) >= wanted
    return result


def fits(
    columns: NumaColumns, rows: Ints, guest: GuestNode, request: NumaRequest, cpu_ratio: Floats, ram_ratio: Floats
) -> Mask:
    """Tell on which nodes of hosts one of a server's nodes fits: bool[len(rows), most nodes of a host].

    Rows that are NONE say something of no meaning.
    """
    room: Mask = columns.number[rows] != NONE
    room &= _memory(columns, rows, guest.memory_mb, request)
    if request.pins:
        count = len(guest.dedicated)
        room &= columns.free[rows] >= count
        if request.threads == "isolate" and count:
            room &= columns.threads[rows] == 1
        elif request.threads == "require" and count:
            room &= columns.packable[rows] >= count
    if request.policy != "dedicated":
        count = len(guest.shared)
        shared, memory = columns.shared[rows], columns.memory_mb[rows]
        room &= (count <= shared) & (columns.shared_used[rows] + count <= shared * cpu_ratio[:, None])
        room &= columns.memory_used_mb[rows] + guest.memory_mb <= memory * ram_ratio[:, None]
    return room


def shortfall(columns: NumaColumns, rows: Ints, request: NumaRequest) -> tuple[str, tuple[int, int | None] | None]:
    """Say what hosts that :func:`mask` ruled out are short of.

    :param rows: of those hosts
    :returns: words with numbers, and which host came closest: its index, and the number of its node or None
    """
    told = np.flatnonzero(rows != NONE)
    if not len(told):
        return "the host's agent tells no NUMA nodes", None
    there = columns.number[rows[told]] != NONE
    counts = there.sum(axis=1)
    if (most := int(counts.max())) < len(request.nodes):
        return f"{len(request.nodes)} NUMA nodes asked, most on one host {most}", (int(told[counts.argmax()]), None)

    def closest(amounts: Ints) -> tuple[int, tuple[int, int]]:
        index, node = np.unravel_index(int(np.where(there, amounts, -1).argmax()), amounts.shape)
        return int(amounts[index, node]), (int(told[index]), int(columns.number[rows[told[index]], node]))

    for what, asked, amounts in _amounts(columns, rows[told], request):
        free, where = closest(amounts)
        if free < asked:
            return f"{what} asked on one node: {asked}, most free {free}", where
    each = "a NUMA node" if len(request.nodes) == 1 else f"{len(request.nodes)} NUMA nodes"
    return f"no host has {each} with enough CPUs, memory and devices nearby together", None


def _amounts(columns: NumaColumns, rows: Ints, request: NumaRequest) -> Iterator[tuple[str, int, Ints]]:
    """Yield what is asked of one node at most: what, how much, and how much each node has."""
    dedicated = max(len(guest.dedicated) for guest in request.nodes)
    shared = max(len(guest.shared) for guest in request.nodes)
    memory_mb = max(guest.memory_mb for guest in request.nodes)
    if dedicated:
        yield "dedicated CPUs", dedicated, columns.free[rows]
        if request.threads == "require":
            yield "dedicated CPUs that are threads of a core", dedicated, columns.packable[rows]
        elif request.threads == "isolate":
            alone = np.where(columns.threads[rows] == 1, columns.free[rows], 0)
            yield "dedicated CPUs that are cores without threads", dedicated, alone
    if shared:
        yield "shared CPUs", shared, columns.shared[rows]
    if request.page_size is None:
        used = columns.memory_used_mb[rows] if request.pins else 0
        yield "MiB", memory_mb, columns.memory_mb[rows] - used
        return
    smallest = columns.smallest_page[rows]
    free_mb = np.zeros(smallest.shape, dtype=np.int64)
    for size, (_, free) in columns.pages.items():
        right = {SMALL: smallest == size, LARGE: smallest != size}.get(request.page_size, smallest > 0)
        if request.page_size in (size, SMALL, LARGE, ANY):
            free_mb = np.maximum(free_mb, np.where(right, free[rows] * size // 1024, 0))
    words = {SMALL: "ordinary pages", LARGE: "large pages", ANY: "pages of one size"}
    yield f"MiB in {words.get(request.page_size, f'pages of {request.page_size} KiB')}", memory_mb, free_mb


def _kind(guest: GuestNode) -> tuple[int, int, int]:
    """Return what is equal for nodes that fit on the same nodes of a host."""
    return len(guest.shared), len(guest.dedicated), guest.memory_mb


def _memory(columns: NumaColumns, rows: Ints, memory_mb: int, request: NumaRequest) -> Mask:
    smallest = columns.smallest_page[rows]
    need_kb = memory_mb * 1024
    if request.page_size is None:
        limit = columns.memory_mb[rows] - (columns.memory_used_mb[rows] if request.pins else 0)
        fitting: Mask = (smallest == 0) & (memory_mb <= limit)
        for size, (total, free) in columns.pages.items():
            if not need_kb % size:
                fitting |= (smallest == size) & (need_kb <= (free if request.pins else total)[rows] * size)
        return fitting
    fitting = np.zeros(smallest.shape, dtype=np.bool_)
    for size, (_, free) in columns.pages.items():
        if need_kb % size:
            continue
        enough: Mask = need_kb <= free[rows] * size
        if request.page_size == SMALL:
            enough &= smallest == size
        elif request.page_size == LARGE:
            enough &= smallest != size
        elif request.page_size not in (ANY, size):
            continue
        fitting |= enough
    return fitting
