# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""From a request and a picture of the fleet to hosts and devices: a pure function.

Prefilters complete the request, candidates narrow the fleet, filters remove hosts, weighers order the rest. Hosts are
scored once for the whole request; after a placement only the host that it changed is scored again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from accelsched import wire
from accelsched.placement import candidates
from accelsched.placement.candidates import Candidate, CandidateQuery, Narrowed, Usage
from accelsched.placement.numa.topology import Placement
from accelsched.placement.picture import Ints, Mask, Picture
from accelsched.scheduler import hosts as hosts_
from accelsched.scheduler.explanation import Explanation, FilterResult, HostScore, SelectionScore
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.filters.base import Filter, Shortfall
from accelsched.scheduler.hosts import HostRow, Hosts
from accelsched.scheduler.numa import joint
from accelsched.scheduler.plugins import Plugins
from accelsched.scheduler.ranking import Ranking, usage_of
from accelsched.scheduler.request import RequestSpec

_TOP = 5
_MOST_WIDTH = 512
_MOST_DEPTH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """Where one server goes, and what it takes there."""

    host: HostRow
    devices: tuple[wire.DeviceAllocation, ...]
    allocations: Mapping[str, Mapping[str, int]]  # amount by provider uuid and class
    numa: Placement | None  # None when no NUMA nodes were asked for
    told: Callable[[], SelectionScore]

    @property
    def score(self) -> SelectionScore:
        """Return how the host scored when it was chosen, and how its devices compared."""
        return self.told()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and (self.host, self.devices, self.allocations, self.numa) == (
            other.host,
            other.devices,
            other.allocations,
            other.numa,
        )

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Decision:
    """As many selections as could be made, up to the count asked for, and why."""

    selections: tuple[Selection, ...]
    explanation: Explanation


@dataclasses.dataclass(frozen=True)
class Admission:
    """Which hosts a request may go to, as far as each part of it is looked at by itself.

    :ivar hosts: all of the fleet's; placements are added to their usage
    :ivar allowed: bool[len(hosts)]
    """

    hosts: Hosts
    query: CandidateQuery
    narrowed: Narrowed
    filters: tuple[Filter, ...]
    filtered: tuple[FilterResult, ...]
    allowed: Mask


def admit(
    picture: Picture, facts: Facts, request: RequestSpec, plugins: Plugins, usage: Usage | None = None
) -> Admission:
    """Ask the prefilters, the picture and the filters.

    :param usage: what is in use, which placements are added to; as the picture has it when None
    """
    query = request.query()
    for prefilter in plugins.prefilters:
        query = prefilter.apply(request, query, facts)
    # Each placement is added here, and not to the picture, which others use after us.
    everyone = hosts_.align(picture, facts, usage_of(picture) if usage is None else usage)
    among = np.zeros(picture.slots, dtype=np.bool_)
    among[everyone.slots] = True
    narrowed = candidates.narrow(picture, query, among)
    alive = narrowed.trees[everyone.slots]
    filtered: list[FilterResult] = []
    filters = [filter_ for filter_ in plugins.filters if not request.forced or filter_.asked_when_forced]
    for filter_ in filters:
        kept = alive & filter_.mask(everyone, request)
        filtered.append(_result(filter_, everyone, request, alive, kept))
        alive = kept
    return Admission(everyone, query, narrowed, tuple(filters), tuple(filtered), alive)


def decide(
    picture: Picture,
    facts: Facts,
    request: RequestSpec,
    count: int,
    plugins: Plugins,
    seed: str,
    *,
    usage: Usage | None = None,
) -> Decision:
    """Choose hosts and devices for ``count`` servers alike.

    :param seed: fixes the order of hosts that score the same; different requests should bring different seeds, so that
        several schedulers do not run for the same host
    :param usage: what is in use, when that is more than the picture has; what is chosen is added to it
    """
    admitted = admit(picture, facts, request, plugins, usage)
    everyone, query, narrowed, alive = admitted.hosts, admitted.query, admitted.narrowed, admitted.allowed
    hosts = everyone if alive.all() else everyone.take(np.flatnonzero(alive))
    again = [filter_ for filter_ in admitted.filters if filter_.changes(hosts, request)]
    turn = lots(len(hosts), seed)
    ranking = Ranking(hosts, request, query, np.ones(len(hosts), dtype=np.bool_), again, plugins.weighers, turn)
    best = top(ranking, _TOP)
    explanation = Explanation.begin(picture, query, count, len(everyone), narrowed, admitted.filtered, best)
    selections = place(ranking, count, narrowed)
    exhausted = len(hosts) if len(selections) < count else 0
    return Decision(tuple(selections), explanation.finish(len(selections), exhausted))


def _result(filter_: Filter, hosts: Hosts, request: RequestSpec, before: Mask, after: Mask) -> FilterResult:
    removed = np.flatnonzero(before & ~after)
    why = filter_.shortfall(hosts.take(removed), request) if len(removed) else Shortfall(filter_.reason(request))
    return FilterResult(
        type(filter_).__name__, int(after.sum()), len(removed), why.reason, most_free_on=why.most_free_on
    )


def lots(count: int, seed: str) -> Ints:
    """Draw lots for the order of hosts that score the same: the turn of each, by nothing but the seed."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    turn = np.empty(count, dtype=np.int64)
    turn[np.random.default_rng(number).permutation(count)] = np.arange(count)
    return turn


@dataclasses.dataclass(frozen=True)
class _Pace:
    """How far ahead to look: at the best ``width`` hosts, and up to ``depth`` servers on each."""

    width: int
    depth: int

    @classmethod
    def of(cls, count: int) -> _Pace:
        return cls(min(count, 16), 1)

    def after(self, used: int, deepest: int, *, too_shallow: bool, too_narrow: bool) -> _Pace:
        width = min(2 * self.width, _MOST_WIDTH) if too_narrow else max(1, min(self.width, 2 * used))
        depth = min(2 * self.depth, _MOST_DEPTH) if too_shallow else max(1, min(self.depth, deepest + 1))
        return _Pace(width, depth)


def place(ranking: Ranking, count: int, narrowed: Narrowed) -> list[Selection]:
    """Place servers one after the other, each on the best host as the ones before it left the fleet.

    :returns: as many as there was room for, ``count`` at most
    """
    selections: list[Selection] = []
    pace = _Pace.of(count)
    while len(selections) < count:
        at_once = ranking.exact and not ranking.binding
        best = ranking.best(pace.width if at_once else 1)
        if not len(best):
            break
        if at_once:
            some, pace = _place_some(ranking, best, count - len(selections), pace)
            selections += some
        elif (selection := place_by_search(ranking, int(best[0]), narrowed)) is not None:
            selections.append(selection)
    return selections


def _place_some(ranking: Ranking, best: Ints, count: int, pace: _Pace) -> tuple[list[Selection], _Pace]:
    """Place servers on the best hosts, as long as that is what one after the other would do.

    Each of these hosts is scored with one server more, with two more, and so on, all hosts at once. Then the servers
    are dealt out, always to the host that is best with those it got so far; what nobody got is put back.

    :param best: the ranking's best hosts, in order
    :returns: selections, ``count`` at most and one at least, and how far to look ahead next time
    """
    stands = [ranking.snapshot(best)]
    steps: list[tuple[Ints, list[Ints]]] = []  # who got one more, and the devices for it
    for _ in range(min(pace.depth, count)):
        able = np.flatnonzero(stands[-1].total > -np.inf)
        devices = [ranking.chosen(table, best[able]) for table in ranking.devices]
        ranking.take(best[able], devices, 1)
        steps.append((able, devices))
        stands.append(ranking.snapshot(best))
    others = ranking.best_except(best)
    scores = [stand.total.tolist() for stand in stands]
    turn = ranking.turn[best].tolist()
    heap = [(-score, turn[k], k, 0) for k, score in enumerate(scores[0])]
    heapq.heapify(heap)
    got: list[tuple[int, int]] = []  # (which of the best hosts, how many it had before)
    too_shallow = too_narrow = False
    while heap and len(got) < count:
        negative, of_equals, k, had = heap[0]
        # Among equals, hosts that are not looked at here may come first.
        if -negative < others or (had and -negative == others):
            too_narrow = True
            break
        if had == len(steps):
            too_shallow = True
            break
        got.append((k, had))
        after = scores[had + 1][k]
        if after > -np.inf:
            heapq.heapreplace(heap, (-after, of_equals, k, had + 1))
        else:
            heapq.heappop(heap)
    too_narrow |= not heap
    kept = np.zeros(len(best), dtype=np.int64)
    np.maximum.at(kept, [k for k, _ in got], [had + 1 for _, had in got])
    for had in reversed(range(len(steps))):
        able, devices = steps[had]
        back = np.flatnonzero(kept[able] <= had)
        if len(back):
            ranking.take(best[able[back]], [chosen[back] for chosen in devices], -1)
    ranking.restore(best, stands, kept)
    chosen_hosts = ranking.hosts.take(best)
    rows, slots = chosen_hosts.rows, chosen_hosts.slots.tolist()
    selections = []
    for k, had in got:
        able, devices = steps[had]
        at = int(np.searchsorted(able, k))
        taken = [table.rows[best[k], chosen[at]] for table, chosen in zip(ranking.devices, devices, strict=True)]
        selections.append(selection_of(ranking, rows[k], slots[k], taken, partial(stands[had].told, k)))
    used = int((kept > 0).sum())
    return selections, pace.after(used, int(kept.max()), too_shallow=too_shallow, too_narrow=too_narrow)


def selection_of(
    ranking: Ranking, host: HostRow, root: int, taken: Sequence[Ints], told: Callable[[], SelectionScore]
) -> Selection:
    """Return the selection of a host and, for each of the ranking's tables, of rows of its inventories."""
    picture = ranking.hosts.picture
    devices: list[wire.DeviceAllocation] = []
    allocations: dict[str, dict[str, int]] = {}
    if ranking.own:
        allocations[host.node_uuid] = amounts = {own.resource_class: own.amount for own in ranking.own}
        devices.append(_device("", picture, root, amounts))
    for table, rows in zip(ranking.devices, taken, strict=True):
        name, amount = table.need.resource_class, table.need.amount
        for suffix, row in zip(table.suffixes, rows.tolist(), strict=True):
            slot = int(picture.classes[name].slot[row])
            devices.append(_device(suffix, picture, slot, {name: amount}))
            allocations.setdefault(devices[-1]["provider_uuid"], {})[name] = amount
    return Selection(host, tuple(devices), allocations, None, told)


def _device(group: str, picture: Picture, slot: int, resources: Mapping[str, int]) -> wire.DeviceAllocation:
    return {
        "group": group,
        "provider_uuid": picture.uuid[slot],
        "provider_name": picture.name[slot],
        "resources": dict(resources),
    }


def place_by_search(ranking: Ranking, index: int, narrowed: Narrowed) -> Selection | None:
    """Place a server on one host whose parts may not all fit together; take the host out when they do not."""
    hosts = ranking.hosts
    picture, usage = hosts.picture, hosts.usage
    root = int(hosts.slots[index])
    weights = ranking.weights(index)
    ways = candidates.expand(picture, narrowed, root, usage=usage, score=lambda slot: weights.get(slot, -np.inf))
    way = joint.best(hosts, index, ranking.request, ranking.numa, ways)
    if way is None:
        ranking.drop(index)
        return None
    candidate, placement = way
    told = partial(ranking.snapshot(np.array([index])).told, 0)
    for (slot, name), amount in candidate.amounts.items():
        usage[name][picture.classes[name].row_of(slot)] += amount
    if placement is not None:
        hosts.hold(index, placement)
    ranking.placed(np.array([index]), 1)
    return _found(picture, narrowed, hosts.take([index]).rows[0], candidate, placement, told)


def _found(
    picture: Picture,
    narrowed: Narrowed,
    host: HostRow,
    candidate: Candidate,
    placement: Placement | None,
    told: Callable[[], SelectionScore],
) -> Selection:
    devices: list[wire.DeviceAllocation] = []
    for group in narrowed.query.groups:
        for name, slot in zip(group.resources, candidate.serving[group.suffix], strict=False):
            device = _device(group.suffix, picture, slot, {name: group.resources[name]})
            same = [d for d in devices if (d["group"], d["provider_uuid"]) == (group.suffix, device["provider_uuid"])]
            if same:
                same[0]["resources"][name] = group.resources[name]
            else:
                devices.append(device)
    allocations: dict[str, dict[str, int]] = {}
    for (slot, name), amount in candidate.amounts.items():
        allocations.setdefault(picture.uuid[slot], {})[name] = amount
    return Selection(host, tuple(devices), allocations, placement, told)


def top(ranking: Ranking, count: int) -> list[HostScore]:
    """Return the scores of the best hosts, in order."""
    best = ranking.best(count)
    scores = ranking.snapshot(best)
    return [scores.told(number).host for number in range(len(best))]
