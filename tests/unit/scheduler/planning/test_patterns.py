# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Fillings against trying everything."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched.scheduler.planning.patterns import Filling, Items, Load, Room

WHOLE = 4
SHAPES = st.lists(
    st.tuples(
        st.integers(1, 4),  # of the host's own
        st.sampled_from([(0, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4)]),  # devices, share of each
        st.integers(1, 9),  # price
        st.sampled_from([(True, True), (True, False), (False, True)]),
    ),
    min_size=1,
    max_size=4,
)
ROOMS = st.lists(
    st.builds(
        Room,
        own=st.integers(0, 7),
        free=st.integers(0, 3),
        parts=st.lists(st.integers(1, 3), max_size=2).map(tuple),
        kind=st.integers(0, 1),
    ),
    min_size=1,
    max_size=3,
)
Shape = tuple[int, tuple[int, int], int, tuple[bool, bool]]


def items_of(shapes: Sequence[Shape]) -> Items:
    return Items(
        own=np.array([own for own, *_ in shapes]),
        share=np.array([share for _, (_, share), *_ in shapes]),
        count=np.array([count for _, (count, _), *_ in shapes]),
        # What asks for no device is allowed everywhere.
        allowed=np.array([allowed if count else (True, True) for _, (count, _), _, allowed in shapes]),
        whole=WHOLE,
    )


def best_by_trying(shapes: Sequence[Shape], room: Room) -> int:
    """Return the value of the best filling, found by placing shape after shape in every way."""

    @functools.cache
    def best(own: int, devices: tuple[int, ...]) -> int:
        value = 0
        for asked, (count, share), price, allowed in shapes:
            if asked > own or (count and not allowed[room.kind]):
                continue
            if count == 0:
                value = max(value, price + best(own - asked, devices))
            elif count == 1:
                for index, left in enumerate(devices):
                    if left >= share:
                        after = sorted([*devices[:index], left - share, *devices[index + 1 :]])
                        value = max(value, price + best(own - asked, tuple(after)))
            elif devices.count(WHOLE) >= count:
                after = [*devices]
                for _ in range(count):
                    after.remove(WHOLE)
                value = max(value, price + best(own - asked, tuple(sorted([*after, *[0] * count]))))
        return value

    return best(room.own, tuple(sorted([*room.parts, *[WHOLE] * room.free])))


@settings(max_examples=150, deadline=None)
@given(shapes=SHAPES, rooms=ROOMS)
def test_a_filling_is_the_best_there_is_and_fits(shapes: list[Shape], rooms: list[Room]) -> None:
    prices = np.array([price for _, _, price, _ in shapes], dtype=np.float64)
    items = items_of(shapes)
    values, loads = Filling(items, prices, max(room.own for room in rooms)).best(rooms)
    for room, value, filling in zip(rooms, values, loads, strict=True):
        assert value == pytest.approx(best_by_trying(shapes, room))
        assert sum(prices[shape] for load in filling for shape in load.shapes) == pytest.approx(value)
        assert fits(items, room, filling)


def fits(items: Items, room: Room, filling: Sequence[Load]) -> bool:
    devices = [*room.parts, *[WHOLE] * room.free]
    own = room.own
    for load in filling:
        for _ in range(load.count):
            devices.remove(load.steps)
        own -= sum(int(items.own[shape]) for shape in load.shapes)
        if load.count == 1 and sum(int(items.share[shape]) for shape in load.shapes) > load.steps:
            return False
        if any(items.count[shape] != load.count for shape in load.shapes):
            return False
        if load.count and not all(items.allowed[shape, room.kind] for shape in load.shapes):
            return False
    return own >= 0
