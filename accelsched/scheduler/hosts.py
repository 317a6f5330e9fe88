# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The hosts that servers can be put on, as columns that line up with the fleet picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsched.placement.candidates import Usage
from accelsched.placement.numa.columns import NumaColumns
from accelsched.placement.numa.topology import Placement
from accelsched.placement.picture import NONE, Floats, Ints, Picture
from accelsched.scheduler.facts import Facts, Told
from accelsched.scheduler.layout import Layout
from accelsched.scheduler.outlook import Outlook
from accelsched.scheduler.table import HostRow, HostTable

__all__ = ["Floats", "HostRow", "Hosts", "align"]


class Hosts(Told):
    """Hosts in columns of one length. ``slots`` are those of their root providers in the picture.

    A whole fleet's hosts, or some of them (:meth:`take`). What is worked out once for the whole serves every part of
    it; what claims do not change, such as where each host's inventories are, serves every decision (see
    :mod:`accelsched.scheduler.layout`).

    :ivar usage: usage by class as the decision sees it, int64[rows of the class]; placements are added to it
    :ivar placed: servers of the present request that were put on each host, int64[len]
    :ivar outlook: what the fleet is expected to be asked for, see :mod:`accelsched.scheduler.outlook`; None when nobody
        keeps one
    """

    def __init__(self, picture: Picture, facts: Facts, layout: Layout, usage: Usage, *, outlook: Any = None) -> None:
        """
        :param layout: where the hosts of the facts' table are in the picture
        """
        self.picture = picture
        self.facts = facts
        self.usage = usage
        self.outlook = outlook
        self._shared = _Shared(layout, np.zeros(len(layout.slots), dtype=np.int64), picture.numa)
        self._indices: Ints | None = None  # into the whole; None: all of it

    def __len__(self) -> int:
        return len(self._shared.placed if self._indices is None else self._indices)

    def take(self, indices: Ints | Sequence[int]) -> Hosts:
        """Return some of the hosts, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._view(chosen if self._indices is None else self._indices[chosen])

    @property
    def rows(self) -> Sequence[HostRow]:
        """Return what is known of each host besides its resources."""
        rows = self.facts.table.rows
        return [rows[index] for index in self.at.tolist()]

    @property
    def at(self) -> Ints:
        """Return the index of each host in the facts' table: int64[len]."""
        return self.part(self._shared.layout.at)

    @property
    def slots(self) -> Ints:
        """Return the slot of each host's root provider: int64[len]."""
        return self.part(self._shared.layout.slots)

    @property
    def placed(self) -> Ints:
        """Return how many servers of the present request were put on each host: int64[len]."""
        return self.part(self._shared.placed)

    @property
    def any_placed(self) -> bool:
        """Tell whether any host, one of these or another, got a server of the present request."""
        return bool(self._shared.placed.any())

    def lines_up(self, other: Hosts) -> bool:
        """Tell whether another fleet's hosts and devices are the same, in the same order."""
        return self._shared.layout is other._shared.layout

    def whole(self) -> Hosts:
        """Return all of the fleet's hosts, in the order that plans count them in."""
        return self._view(None)

    def where(self, indices: Ints) -> Ints:
        """Return the places of some of the hosts among the whole fleet's: int64[len(indices)]."""
        return indices if self._indices is None else self._indices[indices]

    def part(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the rows of these hosts, from an array with a row for each of the whole fleet's."""
        return column if self._indices is None else column[self._indices]

    def free(self, resource_class: str) -> Ints:
        """Return what each host itself (not its devices) has left of a class, in the class's units: int64[len]."""
        columns = self.picture.classes.get(resource_class)
        if columns is None:
            return np.zeros(len(self), dtype=np.int64)
        rows = self.own_rows(resource_class)
        used = self.usage.get(resource_class, columns.used)
        free: Ints = columns.capacity[rows] - used[rows]
        free[rows == NONE] = 0
        return free

    def own_rows(self, resource_class: str) -> Ints:
        """Return the row of each host's own inventory in the columns of a class, NONE without one: int64[len]."""
        return self.part(self._shared.layout.own_rows(resource_class))

    def device_rows(self, resource_class: str) -> Ints:
        """Return the rows of the inventories that each host's devices have of a class: int64[len, most on a host].

        Hosts with fewer are filled up with NONE. A host's devices are in the order of their slots.
        """
        return self.part(self._shared.layout.device_rows(resource_class))

    def on_roots(self, resource_class: str) -> tuple[bool, bool]:
        """Tell whether any inventory of a class in the picture is a tree's root's, and whether all are."""
        return self._shared.layout.on_roots(resource_class)

    def device_slots(self, classes: frozenset[str]) -> Ints:
        """Return the slots of each host's devices that have some of the classes: int64[len, most on a host].

        Hosts with fewer are filled up with NONE.
        """
        return self.part(self._shared.layout.device_slots(classes))

    def device_free(self, resource_class: str) -> Ints:
        """Return what each of the hosts' devices has left of a class: int64[len, most on a host], 0 for no device."""
        columns = self.picture.classes.get(resource_class)
        rows = self.device_rows(resource_class)
        if columns is None:
            return np.zeros(rows.shape, dtype=np.int64)
        used = self.usage.get(resource_class, columns.used)
        free: Ints = columns.capacity[rows] - used[rows]
        free[rows == NONE] = 0
        return free

    @property
    def numa(self) -> NumaColumns:
        """Return the NUMA nodes of the fleet's hosts as the decision sees them; placements are added to them."""
        return self._shared.numa

    @property
    def numa_rows(self) -> Ints:
        """Return the row of each host in :attr:`numa`, NONE for one that has not told its nodes: int64[len]."""
        return self.numa.rows_of(self.slots)

    def hold(self, index: int, placement: Placement) -> None:
        """Add what a server holds of one host's NUMA nodes."""
        if self._shared.numa is self.picture.numa:
            self._shared.numa = self.picture.numa.copy()  # others use the picture after us
        self._shared.numa.hold(int(self.slots[index]), placement)

    def ratio(self, resource_class: str) -> Floats:
        """Return how far each host oversells a class, 1 where it has none of it: float64[len]."""
        columns = self.picture.classes.get(resource_class)
        if columns is None:
            return np.ones(len(self))
        rows = self.own_rows(resource_class)
        return np.where(rows == NONE, 1.0, columns.allocation_ratio[rows])

    def fixed(self, key: object, compute: Callable[[Hosts], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return an array with a row for each host that claims do not change, worked out once for the whole fleet.

        Kept over decisions: usage, heartbeats and all that concerns one request are no part of it.

        :param key: what it is kept under, and all besides the fleet that it depends on
        :param compute: gives it for all hosts
        """
        return self.part(self._shared.layout.fixed(key, lambda: compute(self._view(None))))

    def count(self, indices: Ints, servers: int) -> None:
        """Add to the servers of the present request on some of the hosts; each may be named once."""
        self._shared.placed[self.where(indices)] += servers

    def _view(self, indices: Ints | None) -> Hosts:
        view = object.__new__(Hosts)
        view.picture, view.facts, view.usage, view.outlook = self.picture, self.facts, self.usage, self.outlook
        view._shared = self._shared
        view._indices = indices
        return view


@dataclasses.dataclass
class _Shared:
    """What the parts of a fleet's hosts have in common."""

    layout: Layout
    placed: Ints
    numa: NumaColumns


def align(picture: Picture, known: Facts | Sequence[HostRow], usage: Usage, *, outlook: Outlook | None = None) -> Hosts:
    """Line hosts up with the picture, leaving out those whose provider is gone.

    :param known: facts, or rows of hosts that were heard of just now, of which nothing else is known
    """
    facts = known if isinstance(known, Facts) else Facts(HostTable(known, np.zeros(len(known))), now=0.0)
    return Hosts(picture, facts, facts.table.layout(picture), usage, outlook=outlook or facts.outlook)
