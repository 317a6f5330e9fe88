# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The fleet as columns: what a scheduling decision is made from.

Every provider has a *slot*, an index into the provider columns; every inventory a *row* in the columns of its class.
Slots and rows of what was removed are used again. Whole-fleet questions are vector operations over these arrays;
trees are walked only where those leave something.

No object is kept for a provider but its uuid, its name and its tree's list: a fleet of 600,000 providers is a few
hundred MiB, and taking over the change of one costs the same in any fleet.
"""

from __future__ import annotations

import bisect
import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import os_traits

from accelsched.placement.columns import (
    NONE,
    START,
    BitColumns,
    ClassColumns,
    Floats,
    Ints,
    InventoryRow,
    InventoryTable,
    Mask,
    grown,
)
from accelsched.placement.numa.columns import NumaColumns
from accelsched.placement.numa.topology import HostNuma
from accelsched.placement.partitioning import Partition

__all__ = [
    "NONE",
    "Floats",
    "Ints",
    "InventoryRow",
    "InventoryTable",
    "Mask",
    "Picture",
    "ProviderRow",
    "ProviderTable",
    "moment",
]

_EPOCH = datetime.datetime(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class ProviderRow:
    """One provider with everything that hangs on it, as the database has it."""

    id: int
    uuid: str
    name: str
    generation: int
    root_id: int
    parent_id: int | None
    traits: frozenset[str]
    aggregates: frozenset[str]
    inventories: Mapping[str, InventoryRow]
    updated_us: int = 0  # see moment()
    partition: Partition | None = None
    numa: HostNuma | None = None


@dataclasses.dataclass(frozen=True)
class ProviderTable:
    """Some providers with everything that hangs on them, in columns of one length.

    ``traits`` and ``aggregates`` map a name to the ids of those providers that have it; ``inventories`` a class to its
    inventories; ``parent_id`` is NONE for roots; ``partitions`` has those that have a capacity rule and ``numa`` those
    that have NUMA nodes, by id.
    """

    id: Ints
    uuid: Sequence[str]
    name: Sequence[str]
    generation: Ints
    root_id: Ints
    parent_id: Ints
    updated_us: Ints
    traits: Mapping[str, Ints]
    aggregates: Mapping[str, Ints]
    inventories: Mapping[str, InventoryTable]
    partitions: Mapping[int, Partition]
    numa: Mapping[int, HostNuma] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[ProviderRow]) -> ProviderTable:
        """Return the table of some rows."""
        rows = list(rows)

        def having(field: str) -> dict[str, Ints]:
            found: dict[str, list[int]] = {}
            for row in rows:
                for name in getattr(row, field):
                    found.setdefault(name, []).append(row.id)
            return {name: _ints(ids) for name, ids in found.items()}

        def inventories(name: str) -> InventoryTable:
            some = [(row.id, row.inventories[name]) for row in rows if name in row.inventories]
            return InventoryTable(
                provider_id=_ints([id_ for id_, _ in some]),
                total=_ints([inventory.total for _, inventory in some]),
                reserved=_ints([inventory.reserved for _, inventory in some]),
                min_unit=_ints([inventory.min_unit for _, inventory in some]),
                max_unit=_ints([inventory.max_unit for _, inventory in some]),
                step_size=_ints([inventory.step_size for _, inventory in some]),
                allocation_ratio=np.array([inventory.allocation_ratio for _, inventory in some], dtype=np.float64),
                used=_ints([inventory.used for _, inventory in some]),
                ceiling=_ints([inventory.ceiling for _, inventory in some]),
            )

        return cls(
            id=_ints([row.id for row in rows]),
            uuid=[row.uuid for row in rows],
            name=[row.name for row in rows],
            generation=_ints([row.generation for row in rows]),
            root_id=_ints([row.root_id for row in rows]),
            parent_id=_ints([NONE if row.parent_id is None else row.parent_id for row in rows]),
            updated_us=_ints([row.updated_us for row in rows]),
            traits=having("traits"),
            aggregates=having("aggregates"),
            inventories={name: inventories(name) for name in {name for row in rows for name in row.inventories}},
            partitions={row.id: row.partition for row in rows if row.partition is not None},
            numa={row.id: row.numa for row in rows if row.numa is not None},
        )


class Picture:
    """The columns. Changed only by :meth:`apply`; whoever holds it may read it until then."""

    def __init__(self) -> None:
        self.slots = 0  # slots in use or used once: the length of every provider column's valid part
        self.ids: Ints = np.full(START, NONE, dtype=np.int64)
        self.root: Ints = np.full(START, NONE, dtype=np.int64)
        self.parent: Ints = np.full(START, NONE, dtype=np.int64)
        self.generation: Ints = np.zeros(START, dtype=np.int64)
        self.updated_us: Ints = np.zeros(START, dtype=np.int64)
        # Differs each time that anything of a slot does: what was made from a slot is good as long as it is the same.
        self.version: Ints = np.zeros(START, dtype=np.int64)
        self.uuid: list[str] = []  # by slot; "" where there is no provider
        self.name: list[str] = []
        self.slot_of_id: dict[int, int] = {}
        self.slot_of_uuid: dict[str, int] = {}
        self.tree: dict[int, list[int]] = {}  # root slot -> slots of its tree in their order, itself included
        self.classes: dict[str, ClassColumns] = {}
        self.traits = BitColumns()
        self.aggregates = BitColumns()
        self.partitions: dict[int, Partition] = {}  # by slot, of providers with a capacity rule
        self.numa = NumaColumns()
        # Differs each time that anything but usage does (and generations, moments and ceilings, which follow it): what
        # was made from all the rest is good as long as it is the same.
        self.layout = 0
        self._free: list[int] = []
        self._version = 0
        # Of live(), roots() and reach(), until the layout changes.
        self._live: Mask | None = None
        self._roots: Mask | None = None
        self._reach: dict[int, Mask] | None = None

    def apply(self, asked: Iterable[int], table: ProviderTable) -> None:
        """Take over the present state of some providers.

        :param asked: ids of providers that may have changed
        :param table: those of them that exist; the others are gone
        """
        present = set(table.id.tolist())
        gone = [self.slot_of_id[id_] for id_ in asked if id_ not in present and id_ in self.slot_of_id]
        if gone:
            self._remove(gone)
        if not len(table.id):
            return
        slots = self._slots_of(table.id)
        self._set_trees(slots, table)
        self.generation[slots] = table.generation
        self.updated_us[slots] = table.updated_us
        self._mark(slots)
        self._set_rare(slots, table)
        for slot, uuid, name in zip(slots.tolist(), table.uuid, table.name, strict=True):
            self.uuid[slot] = uuid
            self.name[slot] = name
            self.slot_of_uuid[uuid] = slot
        for bits, having in ((self.traits, table.traits), (self.aggregates, table.aggregates)):
            before = bits.words[slots]
            bits.clear(slots)
            for name, ids in having.items():
                bits.add(name, self._known(ids))
            if not np.array_equal(before, bits.words[slots]):
                self._laid_out_anew()
        for name, inventories in table.inventories.items():
            columns = self.classes.setdefault(name, ClassColumns())
            if columns.put(self._known(inventories.provider_id), inventories):
                self._laid_out_anew()
        for name, columns in self.classes.items():
            has = table.inventories.get(name)
            if columns.drop(slots if has is None else slots[~np.isin(table.id, has.provider_id)]):
                self._laid_out_anew()

    def row(self, slot: int) -> ProviderRow:
        """Return the provider of a slot in use, with everything that hangs on it."""
        if self.ids[slot] == NONE:
            raise KeyError(f"slot {slot} holds no provider")
        parent = int(self.parent[slot])
        inventories = {name: columns.inventory(slot) for name, columns in self.classes.items()}
        return ProviderRow(
            id=int(self.ids[slot]),
            uuid=self.uuid[slot],
            name=self.name[slot],
            generation=int(self.generation[slot]),
            root_id=int(self.ids[self.root[slot]]),
            parent_id=None if parent == NONE else int(self.ids[parent]),
            traits=frozenset(self.traits.names(slot)),
            aggregates=frozenset(self.aggregates.names(slot)),
            inventories={name: inventory for name, inventory in inventories.items() if inventory is not None},
            updated_us=int(self.updated_us[slot]),
            partition=self.partitions.get(slot),
            numa=self.numa.host(slot) or None,
        )

    def live(self) -> Mask:
        """Tell for each slot whether it holds a provider: bool[slots]."""
        if self._live is None:
            self._live = self.ids[: self.slots] != NONE
        return self._live.copy()

    def roots(self) -> Mask:
        """Tell for each slot whether it is a tree's root: bool[slots]."""
        return self._is_root().copy()

    def at_roots(self, mask: Mask) -> Mask:
        """Carry a mask over providers up to their roots: true at each root with a true provider in its tree."""
        # Masks are compared much faster than places are looked up: only for what is below a root.
        is_root = self._is_root()
        result = mask & is_root
        result[self.root[np.flatnonzero(mask & ~is_root)]] = True
        return result

    def having_free(self, name: str, amount: int) -> Mask:
        """Tell for each slot whether that much of a class can be allocated there: bool[slots]."""
        # Unused rows are of slot NONE: one place more for them.
        result = np.zeros(self.slots + 1, dtype=np.bool_)
        columns = self.classes.get(name)
        if columns is not None:
            result[columns.slot[: columns.size]] = columns.fits(amount)
        return result[:-1]

    def reach(self) -> Mapping[int, Mask]:
        """Return the trees that each sharing provider serves besides its own: bool[slots] over roots, by its slot.

        A provider with the trait MISC_SHARES_VIA_AGGREGATE serves every tree with a provider in one of its aggregates.
        """
        if self._reach is None:
            sharing = np.flatnonzero(self.traits.having(os_traits.MISC_SHARES_VIA_AGGREGATE, self.slots)).tolist()
            self._reach = {}
            for slot in sharing:
                trees = self.at_roots(self.aggregates.sharing_any(slot, self.slots))
                trees[self.root[slot]] = False
                self._reach[slot] = trees
        return self._reach

    def _is_root(self) -> Mask:
        if self._roots is None:
            n = self.slots
            self._roots = (self.root[:n] == np.arange(n)) & self.live()
        return self._roots

    def _laid_out_anew(self) -> None:
        self.layout += 1
        self._live = self._roots = self._reach = None

    def _mark(self, slots: Ints) -> None:
        self._version += 1
        self.version[slots] = self._version

    def _set_rare(self, slots: Ints, table: ProviderTable) -> None:
        """Take over what few providers have: capacity rules and NUMA nodes."""
        if not (self.partitions or table.partitions or self.numa or table.numa):
            return
        for slot, id_ in zip(slots.tolist(), table.id.tolist(), strict=True):
            self._set_partition(slot, table.partitions.get(id_))
            self.numa.put(slot, table.numa.get(id_))

    def _set_partition(self, slot: int, partition: Partition | None) -> None:
        if partition is None:
            self.partitions.pop(slot, None)
        else:
            self.partitions[slot] = partition

    def _known(self, ids: Ints) -> Ints:
        return np.fromiter(map(self.slot_of_id.__getitem__, ids.tolist()), dtype=np.int64, count=len(ids))

    def _slots_of(self, ids: Ints) -> Ints:
        """Return the slot of each provider, a new one for those that have none."""
        for id_ in ids.tolist():
            if id_ in self.slot_of_id:
                continue
            if self._free:
                slot = self._free.pop()
            else:
                slot = self.slots
                self.slots += 1
                self.uuid.append("")
                self.name.append("")
            self.slot_of_id[id_] = slot
        self.ids = grown(self.ids, self.slots, NONE)
        self.root = grown(self.root, self.slots, NONE)
        self.parent = grown(self.parent, self.slots, NONE)
        self.generation = grown(self.generation, self.slots)
        self.updated_us = grown(self.updated_us, self.slots)
        self.version = grown(self.version, self.slots)
        self.traits.grow(self.slots)
        self.aggregates.grow(self.slots)
        slots = self._known(ids)
        self.ids[slots] = ids
        return slots

    def _set_trees(self, slots: Ints, table: ProviderTable) -> None:
        roots = self._known(table.root_id)
        moved = self.root[slots] != roots
        if moved.any():
            self._laid_out_anew()
        self._leave_trees(slots[moved].tolist())
        self.root[slots] = roots
        for slot, root in zip(slots[moved].tolist(), roots[moved].tolist(), strict=True):
            bisect.insort(self.tree.setdefault(root, []), slot)
        parents = np.full(len(slots), NONE, dtype=np.int64)
        below = table.parent_id != NONE
        parents[below] = self._known(table.parent_id[below])
        if not np.array_equal(self.parent[slots], parents):
            self._laid_out_anew()
        self.parent[slots] = parents

    def _leave_trees(self, slots: Iterable[int]) -> None:
        for slot in slots:
            root = int(self.root[slot])
            if root == NONE:
                continue
            members = self.tree[root]
            members.remove(slot)
            if not members:
                del self.tree[root]

    def _remove(self, gone: list[int]) -> None:
        self._leave_trees(gone)
        self._laid_out_anew()
        slots = _ints(gone)
        for columns in self.classes.values():
            columns.drop(slots)
        for slot, id_ in zip(gone, self.ids[slots].tolist(), strict=True):
            del self.slot_of_id[id_]
            del self.slot_of_uuid[self.uuid[slot]]
            self.uuid[slot] = self.name[slot] = ""
            self._set_partition(slot, None)
            self.numa.put(slot, None)
        self.traits.clear(slots)
        self.aggregates.clear(slots)
        self.ids[slots] = self.root[slots] = self.parent[slots] = NONE
        self._mark(slots)
        self._free += gone


def moment(us: int) -> datetime.datetime:
    """Return the moment, naive UTC, that is so many microseconds after the beginning of 1970."""
    return _EPOCH + datetime.timedelta(microseconds=us)


def _ints(values: list[Any]) -> Ints:
    return np.array(values, dtype=np.int64)
