# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The NUMA nodes of a whole fleet, a row for each host that has told them and a column for each of its nodes.

The states themselves lie beside the numbers: what a whole fleet is asked is answered by vectors, and where a server
goes in the end is decided from the state of one host.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from accelsched.placement.columns import NONE, START, Ints, grown
from accelsched.placement.numa.topology import HostNuma, NodeState, Placement, with_held

_NUMBERS = (
    "number",
    "threads",
    "dedicated",
    "free",
    "packable",
    "shared",
    "shared_used",
    "memory_mb",
    "memory_used_mb",
    "smallest_page",
)


class NumaColumns:
    """Numbers of every node of every host: int64[rows, most nodes of a host] each.

    :ivar number: of the node, NONE where there is none; everything else is 0 there
    :ivar threads: that a core has at most
    :ivar dedicated: dedicated CPUs
    :ivar free: those of them that nobody holds
    :ivar packable: the most of those that can be taken as whole pairs (or threes ...) of threads of a core
    :ivar shared: shared CPUs
    :ivar shared_used: CPUs of servers that float over them
    :ivar memory_mb: memory
    :ivar memory_used_mb: memory that servers hold
    :ivar smallest_page: size of the smallest pages in KiB, 0 where the host does not tell
    :ivar pages: number of pages and of those that nobody holds, by size in KiB
    """

    def __init__(self) -> None:
        self.number: Ints = np.full((START, 1), NONE, dtype=np.int64)
        self.threads: Ints = np.zeros((START, 1), dtype=np.int64)
        self.dedicated: Ints = self.threads.copy()
        self.free: Ints = self.threads.copy()
        self.packable: Ints = self.threads.copy()
        self.shared: Ints = self.threads.copy()
        self.shared_used: Ints = self.threads.copy()
        self.memory_mb: Ints = self.threads.copy()
        self.memory_used_mb: Ints = self.threads.copy()
        self.smallest_page: Ints = self.threads.copy()
        self.pages: dict[int, tuple[Ints, Ints]] = {}
        self._hosts: list[HostNuma] = []  # by row; () in a row without a host
        self._row_at: npt.NDArray[np.int32] = np.full(START, NONE, dtype=np.int32)
        self._free_rows: list[int] = []

    def __bool__(self) -> bool:
        """Tell whether any host has told its nodes."""
        return len(self._free_rows) < len(self._hosts)

    def rows_of(self, slots: Ints) -> Ints:
        """Return the row of each host by its root's slot, NONE for one that has not told: int64[len(slots)]."""
        if len(slots) and int(slots.max()) >= len(self._row_at):
            self._row_at = grown(self._row_at, int(slots.max()) + 1, NONE)
        return self._row_at[slots].astype(np.int64)

    def host(self, slot: int) -> HostNuma:
        """Return the nodes of a host, none for one that has not told."""
        row = int(self._row_at[slot]) if slot < len(self._row_at) else NONE
        return () if row == NONE else self._hosts[row]

    def put(self, slot: int, host: HostNuma | None) -> None:
        """Set the nodes of a host; None takes them away."""
        # Most providers are devices, which have no nodes: they must cost nothing.
        row = int(self._row_at[slot]) if slot < len(self._row_at) else NONE
        if host is None:
            if row != NONE:
                self._write(row, ())
                self._row_at[slot] = NONE
                self._free_rows.append(row)
            return
        if row == NONE:
            row = self._new_row()
            self._row_at = grown(self._row_at, slot + 1, NONE)
            self._row_at[slot] = row
        self._write(row, host)

    def hold(self, slot: int, placement: Placement) -> None:
        """Add a server to what is held of a host's nodes."""
        row = int(self._row_at[slot])
        self._write(row, with_held(self._hosts[row], placement))

    def copy(self) -> NumaColumns:
        """Return columns that may be changed without changing these."""
        other = copy.copy(self)
        for name in _NUMBERS:
            setattr(other, name, getattr(self, name).copy())
        other.pages = {size: (total.copy(), free.copy()) for size, (total, free) in self.pages.items()}
        other._hosts = self._hosts.copy()
        other._row_at = self._row_at.copy()
        other._free_rows = self._free_rows.copy()
        return other

    def _new_row(self) -> int:
        if self._free_rows:
            return self._free_rows.pop()
        self._hosts.append(())
        rows = len(self._hosts)
        self.number = grown(self.number, rows, NONE)
        for name in _NUMBERS[1:]:
            setattr(self, name, grown(getattr(self, name), rows))
        self.pages = {size: (grown(total, rows), grown(free, rows)) for size, (total, free) in self.pages.items()}
        return rows - 1

    def _write(self, row: int, host: HostNuma) -> None:
        self._widen(len(host))
        self._hosts[row] = host
        self.number[row] = NONE
        for name in _NUMBERS[1:]:
            getattr(self, name)[row] = 0
        for columns in self.pages.values():
            for column in columns:
                column[row] = 0
        for index, state in enumerate(host):
            node = state.node
            self.number[row, index] = node.number
            self.threads[row, index] = node.threads
            self.dedicated[row, index] = len(node.dedicated)
            self.free[row, index] = len(state.free)
            self.packable[row, index] = packable(state)
            self.shared[row, index] = len(node.shared)
            self.shared_used[row, index] = state.shared_used
            self.memory_mb[row, index] = node.memory_mb
            self.memory_used_mb[row, index] = state.memory_used_mb
            self.smallest_page[row, index] = node.smallest_page or 0
            for size, total in node.pages.items():
                if size not in self.pages:
                    self.pages[size] = (np.zeros_like(self.free), np.zeros_like(self.free))
                self.pages[size][0][row, index] = total
                self.pages[size][1][row, index] = state.free_pages(size)

    def _widen(self, nodes: int) -> None:
        more = nodes - self.number.shape[1]
        if more <= 0:
            return

        def wider(column: Ints, fill: int = 0) -> Ints:
            return np.pad(column, ((0, 0), (0, more)), constant_values=fill)

        self.number = wider(self.number, NONE)
        for name in _NUMBERS[1:]:
            setattr(self, name, wider(getattr(self, name)))
        self.pages = {size: (wider(total), wider(free)) for size, (total, free) in self.pages.items()}


def packable(state: NodeState) -> int:
    """Return the most CPUs that one server can pin on a node so that each core it uses gives it two threads or more.

    Each core gives as many as the others, the last one perhaps fewer, as in Nova.
    """
    sizes = [len(core) for core in state.free_cores]
    return max((threads * sum(size >= threads for size in sizes) for threads in set(sizes) if threads > 1), default=0)
