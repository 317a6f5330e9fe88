# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The columns that a fleet picture is made of: inventories of a class by row, names by bit.

A *slot* is a provider's index into the picture's columns. Everything here takes many slots at once, so that a whole
fleet is loaded by the same few vector operations that take over the change of one provider.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Column = TypeVar("Column", bound=npt.NDArray[Any])

NONE = -1
"""No slot, no row: a root's parent, or an unused row."""

NO_CEILING = (1 << 63) - 1
"""The ceiling of an inventory that no capacity rule is about; more than any that a rule gives."""

START = 64
"""Rows that new columns have room for."""

# What of an inventory is set, and not a consequence of usage.
_SETTINGS = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")


def grown(array: Column, size: int, fill: int = 0) -> Column:
    """Return an array with room for ``size`` rows at least, the new ones filled; the same one when it has that room."""
    if size <= len(array):
        return array
    bigger = np.full((max(size, 2 * len(array)), *array.shape[1:]), fill, dtype=array.dtype)
    bigger[: len(array)] = array
    return bigger  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class InventoryRow:
    """One inventory as the database has it; amounts in units of the class."""

    total: int
    reserved: int
    min_unit: int
    max_unit: int
    step_size: int
    allocation_ratio: float
    used: int
    ceiling: int = NO_CEILING  # the most that may be used just now, under the provider's capacity rule


@dataclasses.dataclass(frozen=True)
class InventoryTable:
    """Inventories of one class, in columns of one length, at most one of a provider."""

    provider_id: Ints
    total: Ints
    reserved: Ints
    min_unit: Ints
    max_unit: Ints
    step_size: Ints
    used: Ints
    ceiling: Ints
    allocation_ratio: Floats


class ClassColumns:
    """All inventories of one resource class, one a row. Unused rows have slot NONE and fit nothing."""

    def __init__(self) -> None:
        self.size = 0
        self.slot: Ints = np.full(START, NONE, dtype=np.int64)
        self.capacity: Ints = np.zeros(START, dtype=np.int64)  # just now: no more than the ceiling
        self.used: Ints = np.zeros(START, dtype=np.int64)
        self.free: Ints = np.zeros(START, dtype=np.int64)  # less than nothing where an inventory shrank below its use
        self.min_unit: Ints = np.ones(START, dtype=np.int64)
        self.max_unit: Ints = np.zeros(START, dtype=np.int64)
        self.step_size: Ints = np.ones(START, dtype=np.int64)
        self.total: Ints = np.zeros(START, dtype=np.int64)
        self.reserved: Ints = np.zeros(START, dtype=np.int64)
        self.ceiling: Ints = np.full(START, NO_CEILING, dtype=np.int64)
        self.allocation_ratio: Floats = np.ones(START, dtype=np.float64)
        self._whole: Ints = np.zeros(START, dtype=np.int64)
        self._row_at: npt.NDArray[np.int32] = np.full(START, NONE, dtype=np.int32)
        self._with_ceiling = 0
        self._extremes: tuple[int, int, int] | None = None  # of the limits on sizes, until one changes
        self._free: list[int] = []

    def row_of(self, slot: int) -> int:
        """Return the row of a provider's inventory, NONE when it has none."""
        return int(self._row_at[slot]) if slot < len(self._row_at) else NONE

    def rows_of(self, slots: Ints) -> Ints:
        """Return the row of each provider's inventory, NONE where it has none: int64[len(slots)]."""
        if len(slots) and int(slots.max()) >= len(self._row_at):
            self._row_at = grown(self._row_at, int(slots.max()) + 1, NONE)
        return self._row_at[slots].astype(np.int64)

    def inventory(self, slot: int) -> InventoryRow | None:
        """Return a provider's inventory."""
        row = self.row_of(slot)
        if row == NONE:
            return None
        return InventoryRow(
            int(self.total[row]),
            int(self.reserved[row]),
            int(self.min_unit[row]),
            int(self.max_unit[row]),
            int(self.step_size[row]),
            float(self.allocation_ratio[row]),
            int(self.used[row]),
            int(self.ceiling[row]),
        )

    def whole(self, rows: Ints | int | slice) -> Ints:
        """Return the capacity of some inventories without their ceilings: what an unused provider has."""
        whole: Ints = self._whole[rows]
        return whole

    def has_ceilings(self) -> bool:
        """Tell whether any provider has a capacity rule about this class."""
        return self._with_ceiling > 0

    def put(self, slots: Ints, table: InventoryTable) -> bool:
        """Set the inventories of some providers.

        :param slots: the slot of each of the table's rows
        :returns: whether anything but usage, and ceilings, which follow it, is new
        """
        rows = self.rows_of(slots)
        new = np.flatnonzero(rows == NONE)
        differs = len(new) > 0 or any(
            not np.array_equal(getattr(self, name)[rows], getattr(table, name)) for name in _SETTINGS
        )
        if len(new):
            rows[new] = self._new_rows(len(new))
            self._row_at[slots[new]] = rows[new]
            self.slot[rows[new]] = slots[new]
        self._whole[rows] = capacities(table.total, table.reserved, table.allocation_ratio)
        self.capacity[rows] = np.minimum(self._whole[rows], table.ceiling)
        self.used[rows] = table.used
        self.free[rows] = self.capacity[rows] - table.used
        self.min_unit[rows] = table.min_unit
        self.max_unit[rows] = table.max_unit
        self.step_size[rows] = table.step_size
        if differs:
            self._extremes = None
        self.total[rows] = table.total
        self.reserved[rows] = table.reserved
        self._set_ceilings(rows, table.ceiling)
        self.allocation_ratio[rows] = table.allocation_ratio
        return differs

    def drop(self, slots: Ints) -> bool:
        """Remove the inventories of those of some providers that have one; tell whether any had."""
        rows = self.rows_of(slots)
        had = rows != NONE
        if not had.any():
            return False
        rows = rows[had]
        self._row_at[slots[had]] = NONE
        self.slot[rows] = NONE
        self.capacity[rows] = self.used[rows] = self.free[rows] = self.max_unit[rows] = 0
        self.min_unit[rows] = self.step_size[rows] = 1
        self._set_ceilings(rows, NO_CEILING)
        self._extremes = None
        self._free.extend(rows.tolist())
        return True

    def fits(self, amount: int) -> Mask:
        """Tell for each row whether the amount can be allocated there: bool[size]."""
        fits: Mask = self.free[: self.size] >= amount
        fits &= self.possible(amount)
        return fits

    def possible(self, amount: int) -> Mask:
        """Tell for each row whether allocations of that size are allowed there, whatever is in use: bool[size]."""
        n = self.size
        possible = np.ones(n, dtype=np.bool_)
        # Most classes have the same limits everywhere, and then nobody has to compare, or divide, for each row.
        largest_min, least_max, largest_step = self._limits()
        if largest_min > amount:
            possible &= self.min_unit[:n] <= amount
        if least_max < amount:
            possible &= self.max_unit[:n] >= amount
        if largest_step > 1:
            possible &= amount % self.step_size[:n] == 0
        return possible

    def most_free(self) -> int:
        """Return the row that most can be allocated from at once, the first of several; there has to be one."""
        free = self.free[: self.size]
        row = int(free.argmax())
        if free[row] > self._limits()[1]:
            row = int(np.minimum(free, self.max_unit[: self.size]).argmax())
        return row

    def _limits(self) -> tuple[int, int, int]:
        if self._extremes is None:
            n = self.size
            self._extremes = (
                int(self.min_unit[:n].max(initial=1)),
                int(self.max_unit[:n].min(initial=NO_CEILING)),
                int(self.step_size[:n].max(initial=1)),
            )
        return self._extremes

    def _set_ceilings(self, rows: Ints, ceilings: Ints | int) -> None:
        before = np.count_nonzero(self.ceiling[rows] != NO_CEILING)
        self.ceiling[rows] = ceilings
        self._with_ceiling += int(np.count_nonzero(self.ceiling[rows] != NO_CEILING) - before)

    def _new_rows(self, count: int) -> Ints:
        again = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = np.arange(self.size, self.size + count - len(again), dtype=np.int64)
        self.size += len(fresh)
        for name, fill in (
            ("slot", NONE),
            ("min_unit", 1),
            ("step_size", 1),
            ("allocation_ratio", 1),
            ("ceiling", NO_CEILING),
        ):
            setattr(self, name, grown(getattr(self, name), self.size, fill))
        for name in ("capacity", "used", "free", "max_unit", "total", "reserved", "_whole"):
            setattr(self, name, grown(getattr(self, name), self.size))
        return np.concatenate([np.array(again, dtype=np.int64), fresh])


def capacities(total: Ints, reserved: Ints, allocation_ratio: Floats) -> Ints:
    """Return :func:`accelsched.placement.claims.capacity` of many inventories at once."""
    # The same multiplication of doubles as there. Inventories whose capacity leaves 63 bits are refused when written.
    result: Ints = np.trunc((total - reserved) * allocation_ratio).astype(np.int64)
    return result


class BitColumns:
    """Which of many named things each slot has: one bit a name, 64 to a word."""

    def __init__(self) -> None:
        self.words: npt.NDArray[np.uint64] = np.zeros((START, 1), dtype=np.uint64)
        self._bit_of: dict[str, int] = {}
        self._names: list[str] = []

    def clear(self, slots: Ints) -> None:
        """Take every name from some slots."""
        self.words[slots] = 0

    def add(self, name: str, slots: Ints) -> None:
        """Give one name to some slots."""
        bit = self._bit_of.setdefault(name, len(self._bit_of))
        if bit == len(self._names):
            self._names.append(name)
            if bit // 64 >= self.words.shape[1]:
                wider = np.zeros((len(self.words), self.words.shape[1] * 2), dtype=np.uint64)
                wider[:, : self.words.shape[1]] = self.words
                self.words = wider
        # A slot that is there twice gets the same bit twice.
        self.words[slots, bit // 64] |= np.uint64(1 << (bit % 64))

    def names(self, slot: int) -> list[str]:
        """Return the names that one slot has."""
        found = []
        for index, word in enumerate(self.words[slot].tolist()):
            left = word
            while left:
                lowest = left & -left
                found.append(self._names[64 * index + lowest.bit_length() - 1])
                left ^= lowest
        return found

    def starting_with(self, prefix: str) -> list[str]:
        """Return the names that begin so and that some slot has or had, in their order."""
        return sorted(name for name in self._names if name.startswith(prefix))

    def having(self, name: str, slots: int) -> Mask:
        """Tell for each of the first ``slots`` slots whether it has the name: bool[slots]."""
        bit = self._bit_of.get(name)
        if bit is None:
            return np.zeros(slots, dtype=np.bool_)
        has: Mask = (self.words[:slots, bit // 64] & np.uint64(1 << (bit % 64))) != 0
        return has

    def having_any(self, names: Iterable[str], slots: int) -> Mask:
        """Tell for each slot whether it has one of the names at least: bool[slots]."""
        result = np.zeros(slots, dtype=np.bool_)
        for name in names:
            result |= self.having(name, slots)
        return result

    def sharing_any(self, slot: int, slots: int) -> Mask:
        """Tell for each of the first ``slots`` slots whether it has a name that ``slot`` has too: bool[slots]."""
        shared: Mask = (self.words[:slots] & self.words[slot]).any(axis=1)
        return shared

    def grow(self, slots: int) -> None:
        """Make room for that many slots."""
        self.words = grown(self.words, slots)
