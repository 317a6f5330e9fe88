# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How much of each resource class the fleet has free, and what some placements would leave."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from accelsched.placement import partitioning
from accelsched.placement.partitioning import Held, Partition
from accelsched.placement.picture import NONE, Ints, Picture


@dataclasses.dataclass(frozen=True)
class Room:
    """What a fleet has of one class, in the class's units.

    :ivar capacity: of all inventories, after what is reserved and with overcommitment
    :ivar free_before: what could still be taken, as capacity rules have it just now
    :ivar free_after: the same after the placements
    """

    capacity: int
    free_before: int
    free_after: int


def rooms(picture: Picture, placements: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, Room]:
    """Return what the fleet has of each class, by its name, in their order.

    :param placements: amounts by provider uuid and class, of each server
    """
    taken: dict[int, Counter[str]] = defaultdict(Counter)  # by slot
    for placement in placements:
        for uuid, amounts in placement.items():
            taken[picture.slot_of_uuid[uuid]].update(amounts)
    found: dict[str, Room] = {}
    for name, columns in sorted(picture.classes.items()):
        live = np.flatnonzero(columns.slot[: columns.size] != NONE)
        if not len(live):
            continue
        used, capacity = columns.used[: columns.size].copy(), columns.capacity[: columns.size].copy()
        before = _free(capacity, used, live)
        for slot, amounts in taken.items():
            row = columns.row_of(slot)
            if row != NONE:
                used[row] += amounts[name]
        for slot in taken.keys() & picture.partitions.keys():
            row = columns.row_of(slot)
            ceiling = _ceilings(picture, picture.partitions[slot], slot, taken[slot]).get(name)
            if row != NONE and ceiling is not None:
                capacity[row] = min(int(columns.whole(row)), ceiling)
        found[name] = Room(int(columns.whole(live).sum()), before, _free(capacity, used, live))
    return found


def _free(capacity: Ints, used: Ints, live: Ints) -> int:
    return int(np.maximum(capacity[live] - used[live], 0).sum())


def _ceilings(picture: Picture, partition: Partition, slot: int, taken: Mapping[str, int]) -> dict[str, int]:
    """Return what a provider's capacity rule would allow of each class once more is taken from it."""
    held: dict[str, int] = {}
    for name in partition.rule.classes:
        columns = picture.classes.get(name)
        row = NONE if columns is None else columns.row_of(slot)
        if columns is not None and row != NONE:
            held[name] = int(columns.used[row])
    return partitioning.ceilings(partition.rule, Held(held, partition.positions).plus(taken))
