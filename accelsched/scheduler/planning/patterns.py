# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The best way to fill one host, when each shape has a price: a knapsack in two dimensions, for all hosts at once.

A host has an amount of one resource of its own, its CPUs say, and devices with some amount left each. A share of a
device is cut from one device, whole devices are taken whole. What a single device can hold at best for so many CPUs is
tabled once for each kind of host; a host is then put together from its devices (max-plus convolutions over its CPUs).
Amounts are counted in coarse steps, rounded so that what fits in steps fits in truth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accelsched.placement.picture import Ints, Mask
from accelsched.scheduler.hosts import Floats

_NOTHING = 1e-9


@dataclasses.dataclass(frozen=True)
class Items:
    """Shapes in steps, in columns of one length.

    :ivar own: steps of the host's own resource, int64[shapes]
    :ivar share: steps of each device, at most ``whole``; 0 for shapes without devices
    :ivar count: devices; those of several are whole ones
    :ivar allowed: on which kinds of hosts, bool[shapes, kinds]
    :ivar whole: steps of an unused device
    """

    own: Ints
    share: Ints
    count: Ints
    allowed: Mask
    whole: int


@dataclasses.dataclass(frozen=True)
class Room:
    """What one host has left, in steps.

    :ivar free: devices that are not in use
    :ivar parts: what is left of those in use that have something left
    """

    own: int
    free: int
    parts: tuple[int, ...]
    kind: int


@dataclasses.dataclass(frozen=True)
class Load:
    """What one device, or several whole ones, or none, should carry.

    :ivar steps: of the device as it is now; 0 for none
    :ivar count: devices
    """

    steps: int
    count: int
    shapes: tuple[int, ...]


class Filling:
    """Tables of the best fillings at given prices."""

    def __init__(self, items: Items, prices: Floats, most_own: int) -> None:
        """Fill the tables.

        :param prices: what each shape is worth; those worth nothing are left out: float64[shapes]
        :param most_own: of any host, in steps
        """
        self._items = items
        self._most = most_own
        kinds = items.allowed.shape[1]
        one = _undominated(items, prices, np.flatnonzero((items.count == 1) & (prices > _NOTHING)))
        many = _undominated(items, prices, np.flatnonzero((items.count > 1) & (prices > _NOTHING)))
        none = np.flatnonzero((items.count == 0) & (prices > _NOTHING))
        #: by kind, steps left on one device, steps of the host's own: the best value, and the shape taken first
        self._one, self._one_first = self._table(items.share, items.whole, one, prices, kinds)
        most_devices = int(items.count.max(initial=1))
        self._many, self._many_first = self._table(items.count, most_devices if len(many) else 0, many, prices, kinds)
        self._none, self._none_first = self._table_without_devices(none, prices)
        nothing = np.zeros((kinds, most_own + 1))
        self._frees: dict[int, tuple[Floats, Floats]] = {0: (nothing, nothing + self._none)}

    def best(self, rooms: Sequence[Room]) -> tuple[Floats, list[list[Load]]]:
        """Return the value of the best filling of each host, and the filling."""
        most = max((room.free for room in rooms), default=0)
        for free in range(1, most + 1):
            self._free(free)
        kind = np.array([room.kind for room in rooms], dtype=np.int64)
        value = np.stack([self._frees[room.free][1][room.kind] for room in rooms])
        stages: list[tuple[Ints, Floats]] = []
        for number in range(max((len(room.parts) for room in rooms), default=0)):
            some = np.flatnonzero([len(room.parts) > number for room in rooms])
            before = value[some]
            stages.append((some, before))
            steps = np.array([rooms[i].parts[number] for i in some.tolist()])
            value[some] = _together(before, self._one[kind[some], steps])
        own = np.array([room.own for room in rooms], dtype=np.int64)
        return value[np.arange(len(rooms)), own], [self._trace(room, index, stages) for index, room in enumerate(rooms)]

    def _table(
        self, size: Ints, most: int, chosen: Ints, prices: Floats, kinds: int
    ) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Solve the unbounded knapsack of some shapes over ``size`` and the host's own resource."""
        own, allowed = self._items.own, self._items.allowed
        value = np.zeros((kinds, most + 1, self._most + 1))
        first = np.full(value.shape, -1, dtype=np.int32)
        by_size = sorted(chosen.tolist(), key=lambda shape: int(size[shape]))
        for steps in range(most + 1):
            if steps:
                value[:, steps] = value[:, steps - 1]
                first[:, steps] = first[:, steps - 1]
            for shape in by_size:
                part, cpus = int(size[shape]), int(own[shape])
                if part > steps:
                    break
                if cpus > self._most:
                    continue
                everywhere = bool(allowed[shape].all())
                for kind in [slice(None)] if everywhere else np.flatnonzero(allowed[shape]).tolist():
                    with_shape = value[kind, steps - part, : self._most + 1 - cpus] + prices[shape]
                    here, noted = value[kind, steps, cpus:], first[kind, steps, cpus:]
                    better = with_shape > here + _NOTHING
                    np.copyto(here, with_shape, where=better)
                    np.copyto(noted, shape, where=better)
        return value, first

    def _table_without_devices(self, chosen: Ints, prices: Floats) -> tuple[Floats, Ints]:
        """Solve the unbounded knapsack of shapes that need no device over the host's own resource alone."""
        value, first = [0.0] * (self._most + 1), [-1] * (self._most + 1)
        some = [(int(self._items.own[shape]), float(prices[shape]), shape) for shape in chosen.tolist()]
        for own in range(1, self._most + 1):
            value[own], first[own] = value[own - 1], first[own - 1]
            for cpus, price, shape in some:
                if 0 < cpus <= own and value[own - cpus] + price > value[own] + _NOTHING:
                    value[own], first[own] = value[own - cpus] + price, shape
        return np.array(value), np.array(first, dtype=np.int64)

    def _free(self, free: int) -> tuple[Floats, Floats]:
        """Return what ``free`` unused devices hold one by one, and with all else that needs no device in use."""
        if free not in self._frees:
            single = _together(self._free(free - 1)[0], self._one[:, self._items.whole])
            best = single
            for taken in range(2, min(free, self._many.shape[1] - 1) + 1):
                best = np.maximum(best, _together(self._free(free - taken)[0], self._many[:, taken]))
            self._frees[free] = (single, _together(best, np.broadcast_to(self._none, best.shape)))
        return self._frees[free]

    def _trace(self, room: Room, index: int, stages: Sequence[tuple[Ints, Floats]]) -> list[Load]:
        """Find again how one host's best value came about."""
        items, loads = self._items, []
        own, kind = room.own, room.kind
        for number in range(len(room.parts) - 1, -1, -1):
            some, before = stages[number]
            steps = room.parts[number]
            own, here = _split(before[int(np.searchsorted(some, index))], self._one[kind, steps], own)
            loads.append(Load(steps, 1, self._items_of(self._one, self._one_first, items.share, kind, steps, here)))
        best = (-1.0, 0, 0, 0)
        for taken in range(min(room.free, self._many.shape[1] - 1) + 1):
            if taken == 1:
                continue
            singles = self._free(room.free - taken)[0][kind]
            with_many = _together(singles, self._many[kind, taken]) if taken else singles
            devices, rest = _split(with_many, self._none, own)
            value = float(with_many[devices] + self._none[rest])
            if value > best[0] + _NOTHING:
                best = (value, taken, devices, rest)
        _, taken, devices, rest = best
        while self._none[rest] > _NOTHING:
            while self._none[rest - 1] >= self._none[rest] - _NOTHING:
                rest -= 1
            loads.append(Load(0, 0, (int(self._none_first[rest]),)))
            rest -= int(items.own[loads[-1].shapes[0]])
        if taken:
            devices, here = _split(self._free(room.free - taken)[0][kind], self._many[kind, taken], devices)
            shapes = self._items_of(self._many, self._many_first, items.count, kind, taken, here)
            loads += [Load(items.whole, int(items.count[shape]), (shape,)) for shape in shapes]
        for left in range(room.free - taken, 0, -1):
            devices, here = _split(self._free(left - 1)[0][kind], self._one[kind, items.whole], devices)
            shapes = self._items_of(self._one, self._one_first, items.share, kind, items.whole, here)
            loads.append(Load(items.whole, 1, shapes))
        return [load for load in loads if load.shapes]

    def _items_of(
        self, value: Floats, first: npt.NDArray[np.int32], size: Ints, kind: int, steps: int, own: int
    ) -> tuple[int, ...]:
        shapes = []
        while value[kind, steps, own] > _NOTHING:
            # The shape is noted where its value first came about: with the least of both.
            while steps and value[kind, steps - 1, own] >= value[kind, steps, own] - _NOTHING:
                steps -= 1
            while own and value[kind, steps, own - 1] >= value[kind, steps, own] - _NOTHING:
                own -= 1
            shape = int(first[kind, steps, own])
            shapes.append(shape)
            steps -= int(size[shape])
            own -= int(self._items.own[shape])
        return tuple(shapes)


def _together(one: Floats, other: Floats) -> Floats:
    """Return the best sums for each total: max over b of one[a - b] + other[b], along the last axis."""
    n = one.shape[-1]
    best = one + other[..., :1]
    for b in range(1, n):
        np.maximum(best[..., b:], one[..., : n - b] + other[..., b : b + 1], out=best[..., b:])
    return best


def _split(one: Floats, other: Floats, total: int) -> tuple[int, int]:
    """Return how much of a total goes to each of two, at best."""
    a = int(np.argmax(one[: total + 1] + other[total::-1]))
    return a, total - a


def _undominated(items: Items, prices: Floats, chosen: Ints) -> Ints:
    """Leave out shapes that another one is at least as good as: no larger, no less worth, allowed wherever they are."""
    own, share, count = items.own[chosen], items.share[chosen], items.count[chosen]
    price, allowed = prices[chosen], items.allowed[chosen]
    no_larger = (own[:, None] <= own) & (share[:, None] <= share) & (count[:, None] <= count)
    better = no_larger & (price[:, None] >= price) & ~(allowed[None] & ~allowed[:, None]).any(axis=2)
    # Of equals, the first one stays.
    later = np.arange(len(chosen))[:, None] < np.arange(len(chosen))
    dominated = (better & (later | ~better.T)).any(axis=0)
    return chosen[~dominated]
