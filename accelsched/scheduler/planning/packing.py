# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Pack an expected demand onto hosts as they are: a linear program over ways to fill one host.

Hosts that have the same left are one class. A *pattern* is a way to fill a host of a class. The program says how many
hosts of each class should follow which pattern, so that the shapes placed are worth most and none is planned more often
than it is expected. There are far too many patterns to write down; they are generated where the program's dual prices
promise something (Gilmore and Gomory, 1961); :class:`~accelsched.scheduler.planning.patterns.Filling` finds them.
Solved by HiGHS.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import highspy
import numpy as np

from accelsched.placement.picture import Ints
from accelsched.scheduler.hosts import Floats
from accelsched.scheduler.planning.patterns import Filling, Items, Load, Room

_GAP = 1e-3
"""Generating patterns ends when the program is this close to the best bound, relative to its value."""
_PROMISING = 0.5
"""A shape is worth planning greedily as long as so many of it are still expected."""


@dataclasses.dataclass(frozen=True)
class HostClass:
    """Hosts that have the same left.

    :ivar others: what they have left of other resources of their own
    :ivar members: the hosts, by number
    """

    room: Room
    others: tuple[int, ...]
    members: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Demand:
    """The shapes to expect, in columns of one length.

    :ivar items: in steps
    :ivar others: what each asks of the host's other resources, int64[shapes, others]
    :ivar expected: how many of each, float64[shapes]
    :ivar value: what placing one is worth, float64[shapes]
    :ivar bulk: what one step of the host's own resource counts when patterns are found greedily
    """

    items: Items
    others: Ints
    expected: Floats
    value: Floats
    bulk: float


Pattern = tuple[Load, ...]


def pack(
    classes: Sequence[HostClass], demand: Demand, known: Mapping[int, Sequence[Pattern]], rounds: int
) -> dict[int, Pattern]:
    """Return a pattern for each host that should take something.

    :param known: patterns to begin with, by class; without any, some are found greedily
    :param rounds: how often patterns are generated at most
    """
    program = _Program(classes, demand)
    if known:
        for number, patterns in known.items():
            for pattern in patterns:
                program.add(number, pattern)
    else:
        _greedy(program)
    most_own = max(host_class.room.own for host_class in classes)
    prices = _first_prices(classes, demand)
    bound = np.inf
    rooms = [host_class.room for host_class in classes]
    for number_of_round in range(rounds):
        filling = Filling(demand.items, np.maximum(demand.value - prices, 0.0), most_own)
        values, found = filling.best(rooms)
        # What the program could be worth at most, by these prices.
        bound = min(bound, float(prices @ demand.expected + values @ program.sizes))
        new = [program.add(number, tuple(pattern)) for number, pattern in enumerate(found)]
        if not any(new) and number_of_round:
            break
        worth, prices = program.solve()
        if bound <= worth * (1.0 + _GAP):
            break
    return program.rounded()


class _Program:
    """The linear program, growing by patterns."""

    def __init__(self, classes: Sequence[HostClass], demand: Demand) -> None:
        self.classes = classes
        self.demand = demand
        self.sizes = np.array([len(host_class.members) for host_class in classes], dtype=np.float64)
        self.patterns: list[tuple[int, Pattern, Counter[int]]] = []
        self._known: set[object] = set()
        self._solver = _solver([*demand.expected.tolist(), *self.sizes.tolist()])

    def add(self, number: int, pattern: Pattern) -> bool:
        """Add a pattern of a class; tell whether it is new."""
        pattern = self.within(number, pattern)
        counts = Counter(shape for load in pattern for shape in load.shapes)
        key = (number, frozenset(counts.items()))
        if not counts or key in self._known:
            return False
        self._known.add(key)
        shapes = sorted(counts)
        rows = np.array([*shapes, len(self.demand.expected) + number], np.int32)
        amounts = np.array([*(counts[shape] for shape in shapes), 1], np.float64)
        value = float(sum(self.demand.value[shape] * count for shape, count in counts.items()))
        self._solver.addCol(value, 0.0, highspy.kHighsInf, len(rows), rows, amounts)
        self.patterns.append((number, pattern, counts))
        return True

    def solve(self) -> tuple[float, Floats]:
        """Return the value of the program, and what it would pay for one more of each shape expected."""
        self._solver.run()
        duals = np.array(self._solver.getSolution().row_dual)
        worth = float(self._solver.getInfo().objective_function_value)
        return worth, np.maximum(duals[: len(self.demand.expected)], 0.0)

    def rounded(self) -> dict[int, Pattern]:
        """Return a whole number of hosts for each pattern, close to the program's fractions."""
        self.solve()
        usage = np.array(self._solver.getSolution().col_value)
        used: dict[int, list[int]] = {}
        left = np.zeros(len(self.demand.expected))
        for number in np.flatnonzero(usage > 1e-6).tolist():
            host_class, _, counts = self.patterns[number]
            used.setdefault(host_class, []).append(number)
            for shape, count in counts.items():
                left[shape] += count * usage[number]
        left = np.ceil(np.minimum(left, self.demand.expected) - 1e-6)
        chosen: dict[int, Pattern] = {}
        undecided: list[tuple[int, list[int]]] = []

        def follow(host: int, number: int) -> None:
            _, pattern, counts = self.patterns[number]
            chosen[host] = pattern
            for shape, count in counts.items():
                left[shape] -= count

        for host_class, numbers in used.items():
            members = iter(self.classes[host_class].members)
            for number in numbers:
                for _ in range(int(usage[number] + 1e-6)):
                    if (host := next(members, None)) is not None:
                        follow(host, number)
            undecided += [(host, numbers) for host in members]
        for host, numbers in undecided:
            follow(host, max(numbers, key=lambda number: (self._of_use(number, left), usage[number] % 1.0)))
        return chosen

    def _of_use(self, number: int, left: Floats) -> float:
        """Return what a pattern is worth, not counting what is planned often enough already."""
        counts = self.patterns[number][2]
        return float(sum(self.demand.value[s] * min(c, max(left[s], 0.0)) for s, c in counts.items()))

    def within(self, number: int, pattern: Pattern) -> Pattern:
        """Leave shapes out of a pattern until the host's other resources suffice for the rest."""
        left = np.array(self.classes[number].others)
        asked = self.demand.others
        shapes = [shape for load in pattern for shape in load.shapes]
        over = asked[shapes].sum(axis=0) - left if shapes else -left
        if not (over > 0).any():
            return pattern
        loads = [list(load.shapes) for load in pattern]
        while (over > 0).any():
            short = int(np.argmax(over))
            which, shape = max(
                ((which, shape) for which, load in enumerate(loads) for shape in load),
                key=lambda pair: int(asked[pair[1], short]),
            )
            loads[which].remove(shape)
            over = over - asked[shape]
        return tuple(
            dataclasses.replace(load, shapes=tuple(rest)) for load, rest in zip(pattern, loads, strict=True) if rest
        )


def _greedy(program: _Program) -> None:
    """Find patterns by filling one class after the other as full as can be with what is still expected."""
    demand = program.demand
    left = demand.expected.copy()
    weight = demand.value + demand.bulk * demand.items.own
    for number in sorted(range(len(program.classes)), key=lambda n: -program.classes[n].room.own):
        room = program.classes[number].room
        items = dataclasses.replace(demand.items, allowed=demand.items.allowed[:, room.kind : room.kind + 1])
        hosts = len(program.classes[number].members)
        while hosts > 0:
            prices = np.where((left >= _PROMISING) & items.allowed[:, 0], weight, 0.0)
            _, (loads,) = Filling(items, prices, room.own).best([dataclasses.replace(room, kind=0)])
            pattern = program.within(number, tuple(loads))
            counts = Counter(shape for load in pattern for shape in load.shapes)
            if not counts:
                break
            program.add(number, pattern)
            times = max(1, min(hosts, int(min(left[shape] / count for shape, count in counts.items()))))
            for shape, count in counts.items():
                left[shape] -= count * times
            hosts -= times


def _first_prices(classes: Sequence[HostClass], demand: Demand) -> Floats:
    """Return what one more of each shape would be worth if hosts of a kind could be cut up at will."""
    items = demand.items
    kinds = sorted({host_class.room.kind for host_class in classes})
    have = {kind: np.zeros(2 + demand.others.shape[1]) for kind in kinds}
    devices = dict.fromkeys(kinds, 0)
    for host_class in classes:
        room = host_class.room
        amounts = [room.own, room.free * items.whole + sum(room.parts), *host_class.others]
        have[room.kind] += len(host_class.members) * np.array(amounts)
        devices[room.kind] = max(devices[room.kind], room.free + len(room.parts))
    solver = _solver([*demand.expected.tolist(), *(amount for kind in kinds for amount in have[kind].tolist())])
    shapes, width = len(demand.expected), 2 + demand.others.shape[1]
    asked = np.column_stack([items.own, items.share * items.count, demand.others])
    for number, kind in enumerate(kinds):
        for shape in range(shapes):
            if items.count[shape] and (not items.allowed[shape, kind] or items.count[shape] > devices[kind]):
                continue
            rows = np.array([shape, *range(shapes + number * width, shapes + (number + 1) * width)], np.int32)
            takes = np.array([1.0, *asked[shape].tolist()])
            solver.addCol(float(demand.value[shape]), 0.0, highspy.kHighsInf, len(rows), rows, takes)
    solver.run()
    prices: Floats = np.maximum(np.array(solver.getSolution().row_dual)[:shapes], 0.0)
    return prices


def _solver(most: Sequence[float]) -> highspy.Highs:
    """Return a program without variables whose constraints allow so much each."""
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    # One thread and no time limit: the same input gives the same plan.
    solver.setOptionValue("threads", 1)
    solver.changeObjectiveSense(highspy.ObjSense.kMaximize)
    for amount in most:
        solver.addRow(-highspy.kHighsInf, amount, 0, np.array([], np.int32), np.array([]))
    return solver
