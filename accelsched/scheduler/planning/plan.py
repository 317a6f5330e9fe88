# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A plan: for every host, the shapes that should still come to it, and the devices that each should take.

Made from the hosts as they are and the mix to expect, as many requests as what is idle would take. Nothing is reserved
by it: it only tells weighers where a request fits in well. A request that goes elsewhere takes what was planned there
out of the plan.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import numpy as np

from accelsched.placement import candidates
from accelsched.placement.picture import NONE, Ints, Mask
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.outlook import Mix, Shape
from accelsched.scheduler.planning import packing
from accelsched.scheduler.planning.packing import Demand, HostClass, Pattern
from accelsched.scheduler.planning.patterns import Items, Load, Room

_DEVICE_STEPS = 100
_OWN_STEPS = range(96, 193)
"""Into how many steps the largest host may be divided. More is finer, and slower by the square."""
_FIRST_ROUNDS, _ROUNDS = 40, 10
_WITHOUT_DEVICES = 0.15
"""What a request without devices is worth, as a share of the devices that stand by what it takes of a host. Little: it
should go where no device will miss it."""
_MOST_SHAPES = 400


@dataclasses.dataclass
class _Slot:
    """A place kept for one request: its shape's number and the devices, columns of the hosts' table."""

    shape: int
    devices: tuple[int, ...]


class Plan:
    """Places kept for shapes that are expected, by host.

    :ivar resource_class: the class of devices that it is about
    """

    def __init__(self, hosts: Hosts, problem: Problem, patterns: Mapping[int, Pattern]) -> None:
        """Give each host the places of its pattern.

        :param hosts: a whole fleet
        """
        self.resource_class = problem.resource_class
        self._problem = problem
        self._hosts = hosts
        self._slots: list[list[_Slot]] = [[] for _ in range(len(hosts))]
        devices = problem.devices
        # By shape: how many places for it each host has on each device (one column for shapes without): int16.
        self._places: dict[int, Ints] = {}
        self._own_slack: dict[str, Ints] = {name: hosts.free(name).copy() for name in problem.classes}
        self._device_slack = devices.copy()
        # What hosts had left when placements were last taken out; see catch_up.
        self._seen, self._seen_own = devices, {name: slack.copy() for name, slack in self._own_slack.items()}
        for host, pattern in patterns.items():
            self._slots[host] = _concrete(pattern, devices[host].tolist(), problem)
            for slot in self._slots[host]:
                self._count(host, slot, 1)
            self._find_slack(host)

    def __len__(self) -> int:
        """Return how many places are kept."""
        return sum(map(len, self._slots))

    def places(self, shape: Shape) -> Ints | None:
        """Return how many places for a shape are kept on each device: int64[hosts, devices], None for none at all.

        For a shape without devices: int64[hosts, 1].
        """
        number = self._problem.number_of(shape)
        return None if number is None else self._places.get(number)

    @property
    def device_slack(self) -> Ints:
        """Return what of each device no place is kept on: int64[hosts, devices]."""
        return self._device_slack

    def own_slack(self, name: str) -> Ints | None:
        """Return what of a class of each host itself no place takes: int64[hosts], None for a class not looked at."""
        return self._own_slack.get(name)

    def took(self, host: int, shape: Shape, devices: tuple[int, ...]) -> None:
        """Take out what a placement has used up: the place kept for it, or else what does not fit beside it any more.

        :param devices: that it took, columns of the hosts' table
        """
        slots = self._slots[host]
        number = self._problem.number_of(shape)
        mine = [slot for slot in slots if slot.shape == number]
        if mine:
            slot = next((slot for slot in mine if set(slot.devices) == set(devices)), mine[0])
            slots.remove(slot)
            self._count(host, slot, -1)
            self._swap(host, slot.devices, devices)
        self._drop_what_is_too_much(host)

    def is_of(self, hosts: Hosts) -> bool:
        """Tell whether the plan's rows and columns are those of some hosts."""
        return self._hosts.lines_up(hosts)

    def catch_up(self, hosts: Hosts) -> None:
        """Take out what placements have used up since, whoever made them, by what hosts have left now.

        :param hosts: the whole fleet as it is now; nobody may place anything on these columns
        """
        self._hosts = hosts
        devices = hosts.device_free(self.resource_class)
        own = {name: hosts.free(name) for name in self._seen_own}
        changed = (devices != self._seen).any(axis=1)
        for name, free in own.items():
            changed |= free != self._seen_own[name]
        taken = self._seen - devices
        self._seen, self._seen_own = devices, own
        for host in np.flatnonzero(changed).tolist():
            self._take_out(host, taken[host])

    def _take_out(self, host: int, taken: Ints) -> None:
        """Take out the places that a host's devices gave as much as, the largest first, then those that do not fit now.

        :param taken: of each device, int64[devices]
        """
        slots, amounts = self._slots[host], self._problem.amounts
        for slot in sorted(slots, key=lambda slot: -int(amounts[slot.shape])):
            where = list(slot.devices)
            if where and (taken[where] >= amounts[slot.shape]).all():
                taken[where] -= amounts[slot.shape]
                slots.remove(slot)
                self._count(host, slot, -1)
        self._drop_what_is_too_much(host)

    def _drop_what_is_too_much(self, host: int) -> None:
        self._find_slack(host)
        while (over := self._too_much(host)) is not None:
            self._slots[host].remove(over)
            self._count(host, over, -1)
            self._find_slack(host)

    def known(self, problem: Problem) -> dict[int, list[Pattern]]:
        """Return what is left of each host's places as a pattern, by its class in another problem."""
        free = self._hosts.device_free(self.resource_class)
        found: dict[int, list[Pattern]] = {}
        for number, host_class in enumerate(problem.classes_of_hosts):
            for host in host_class.members:
                if pattern := _abstract(self._slots[host], free[host].tolist(), self._problem, problem):
                    found.setdefault(number, []).append(pattern)
        return found

    def _count(self, host: int, slot: _Slot, places: int) -> None:
        width = self._device_slack.shape[1] if slot.devices else 1
        table = self._places.setdefault(slot.shape, np.zeros((len(self._slots), width), dtype=np.int64))
        for device in slot.devices or (0,):
            table[host, device] += places

    def _swap(self, host: int, planned: tuple[int, ...], taken: tuple[int, ...]) -> None:
        """Let other places have the devices that were planned for a request which took theirs."""
        gained, lost = [d for d in taken if d not in planned], [d for d in planned if d not in taken]
        instead = dict(zip(gained, lost, strict=False))
        for slot in self._slots[host]:
            if instead.keys() & set(slot.devices):
                self._count(host, slot, -1)
                slot.devices = tuple(instead.get(device, device) for device in slot.devices)
                self._count(host, slot, 1)

    def _find_slack(self, host: int) -> None:
        problem, one = self._problem, self._hosts.take([host])
        devices = one.device_free(self.resource_class)[0]
        for name in problem.classes:
            asked = problem.asked[name]
            self._own_slack[name][host] = one.free(name)[0] - sum(int(asked[s.shape]) for s in self._slots[host])
        for slot in self._slots[host]:
            for device in slot.devices:
                devices[device] -= problem.amounts[slot.shape]
        self._device_slack[host] = devices

    def _too_much(self, host: int) -> _Slot | None:
        """Return the place that is missed least, of those on a device or host that has less left than is planned."""
        slots = self._slots[host]
        if not slots:
            return None
        over = [slot for slot in slots if any(self._device_slack[host, device] < 0 for device in slot.devices)]
        if not over and any(slack[host] < 0 for slack in self._own_slack.values()):
            over = slots
        return min(over, key=lambda slot: self._problem.demand.value[slot.shape]) if over else None


class Problem:
    """What a plan is made for: hosts in classes and shapes in steps.

    :ivar classes: the resource classes of hosts themselves that shapes ask for, the scarcest first
    :ivar asked: what each shape asks of its host by class, int64[shapes]
    :ivar amounts: what each asks of each device, int64[shapes]
    :ivar devices: what each device had left, int64[hosts, devices]
    """

    def __init__(self, hosts: Hosts, mix: Mix, resource_class: str) -> None:
        """Put hosts and shapes in order.

        :param hosts: a whole fleet
        """
        self.resource_class = resource_class
        devices = self.devices = hosts.device_free(resource_class)
        capacity = hosts.picture.classes[resource_class].capacity
        whole = int(capacity.max())
        shapes = [s for s in mix.shares if s.need is None or s.need.resource_class == resource_class]
        self.classes = _scarcest_first(hosts, {shape: mix.shares[shape] for shape in shapes})
        self._merge({shape: mix.shares[shape] for shape in shapes})
        counts = np.array([s.need.count if s.need else 0 for s in self.shapes], dtype=np.int64)
        share = np.array(self._shares)
        idle = float(devices.sum())
        average = float(share @ (self.amounts * counts))
        free = {name: hosts.free(name) for name in self.classes}
        main = self.classes[0] if self.classes else None
        own_all = float(free[main].sum()) if main else 0.0
        own = self.asked[main] if main else np.zeros(len(self.shapes), dtype=np.int64)
        bulk = idle / own_all if own_all else 0.0
        value = np.where(counts > 0, self.amounts * counts, _WITHOUT_DEVICES * bulk * own)
        own_step = _step(own, share, free[main]) if main else 1
        device_step = -(-whole // _DEVICE_STEPS)
        self._device_step, self._whole = device_step, whole // device_step
        kinds, able = _kinds(hosts, self.shapes, resource_class)
        items = Items(
            -(-own // own_step),
            np.minimum(-(-self.amounts // device_step), self._whole),
            counts,
            able,
            self._whole,
        )
        others = np.array([self.asked[name] for name in self.classes[1:]], dtype=np.int64).reshape(-1, len(share)).T
        self.demand = Demand(
            items, others, share * idle / max(average, 1e-9), value.astype(np.float64), bulk * own_step
        )
        self.expects_devices = average > 0
        members: dict[tuple[Room, tuple[int, ...]], list[int]] = {}
        steps = devices // device_step
        for host in range(len(hosts)):
            left = sorted((int(s) for s in steps[host]), reverse=True)
            unused = sum(s >= self._whole for s in left)
            parts = tuple(s for s in left if 0 < s < self._whole)
            room = Room(int(free[main][host]) // own_step if main else 0, unused, parts, int(kinds[host]))
            key = (room, tuple(int(free[name][host]) for name in self.classes[1:]))
            members.setdefault(key, []).append(host)
        self.classes_of_hosts = [HostClass(room, left, tuple(some)) for (room, left), some in members.items()]

    def number_of(self, shape: Shape) -> int | None:
        """Return the number of a shape, None when it is not expected."""
        return self._numbers.get(self._alike(shape))

    def steps_of(self, left: int) -> int:
        """Return what is left of one device in steps."""
        return min(left // self._device_step, self._whole)

    @property
    def whole(self) -> int:
        """Return the steps of an unused device."""
        return self._whole

    def _alike(self, shape: Shape) -> Shape:
        """Return the shape without what it asks of resources that are not scarce."""
        return dataclasses.replace(shape, own=tuple((n, a) for n, a in shape.own if n in self.classes[:1]))

    def _merge(self, shares: Mapping[Shape, float]) -> None:
        """Take shapes together that differ in resources which are not scarce; of those, the average counts."""
        groups: dict[Shape, list[tuple[Shape, float]]] = {}
        for shape, share in shares.items():
            groups.setdefault(self._alike(shape), []).append((shape, share))
        weights = {alike: sum(share for _, share in some) for alike, some in groups.items()}
        self.shapes = sorted(groups, key=lambda alike: -weights[alike])[:_MOST_SHAPES]
        self._numbers = {shape: number for number, shape in enumerate(self.shapes)}
        self._shares = [weights[shape] for shape in self.shapes]
        self.amounts: Ints = np.array([s.need.amount if s.need else 0 for s in self.shapes], dtype=np.int64)
        self.asked: dict[str, Ints] = {
            name: np.array(
                [
                    round(sum(dict(one.own).get(name, 0) * share for one, share in groups[shape]) / weights[shape])
                    for shape in self.shapes
                ],
                dtype=np.int64,
            )
            for name in self.classes
        }


def make(hosts: Hosts, mix: Mix, resource_class: str, before: Plan | None = None) -> Plan | None:
    """Make a plan for hosts as they are.

    :param hosts: a whole fleet
    :param before: a plan for the same hosts that part of has come true: its places are a good start
    :returns: None when the mix asks for none of these devices
    """
    if resource_class not in hosts.picture.classes:
        return None
    problem = Problem(hosts, mix, resource_class)
    patterns = solve(problem, before.known(problem) if before else {})
    return None if patterns is None else Plan(hosts, problem, patterns)


def solve(problem: Problem, known: Mapping[int, list[Pattern]]) -> Mapping[int, Pattern] | None:
    """Return how to fill each host. Needs nothing but the problem, so that a fleet may go on changing.

    :param known: patterns that are a good start, by class of hosts
    :returns: None when the mix asks for none of these devices
    """
    if not problem.expects_devices or not problem.classes_of_hosts:
        return None
    return packing.pack(problem.classes_of_hosts, problem.demand, known, _ROUNDS if known else _FIRST_ROUNDS)


def _scarcest_first(hosts: Hosts, shares: Mapping[Shape, float]) -> tuple[str, ...]:
    asked: Counter[str] = Counter()
    for shape, share in shares.items():
        for name, amount in shape.own:
            asked[name] += amount * share  # type: ignore[assignment]
    scarcity = {name: amount / max(1.0, float(hosts.free(name).sum())) for name, amount in asked.items()}
    return tuple(sorted(scarcity, key=lambda name: (-scarcity[name], name)))


def _step(asked: Ints, share: Ints, free: Ints) -> int:
    """Return the step that wastes least by rounding: requests up, hosts down."""
    most = max(1, int(free.max()))
    needs = np.maximum(asked, 1)
    hosts, times = np.unique(free[free > 0], return_counts=True)
    best = (np.inf, 1)
    for steps in _OWN_STEPS:
        step = max(1, -(-most // steps))
        wasted = float(share @ (-(-needs // step) * step)) / float(share @ needs) - 1.0
        cut = float((hosts % step) @ times) / max(1.0, float(hosts @ times))
        best = min(best, (wasted + cut, step))
    return best[1]


def _kinds(hosts: Hosts, shapes: list[Shape], resource_class: str) -> tuple[Ints, Mask]:
    """Return which kind each host is, and on which kinds each shape is allowed: int64[hosts], bool[shapes, kinds]."""
    rows = hosts.device_rows(resource_class)
    slots = hosts.picture.classes[resource_class].slot[rows]
    able = np.ones((len(hosts), len(shapes)), dtype=np.bool_)
    for number, shape in enumerate(shapes):
        if shape.need:
            qualified = candidates.qualities(hosts.picture, shape.device_group)[slots] & (rows != NONE)
            able[:, number] = qualified.sum(axis=1) >= shape.need.count
    # Whether a host has enough devices the packing sees by itself; what counts here is which kinds there are.
    kinds, which = np.unique(able, axis=0, return_inverse=True)
    return which.reshape(-1).astype(np.int64), kinds.T


def _concrete(pattern: Pattern, left: list[int], problem: Problem) -> list[_Slot]:
    """Give the loads of a pattern devices that have as much left."""
    by_steps: dict[int, list[int]] = {}
    for device, amount in enumerate(left):
        by_steps.setdefault(problem.steps_of(amount), []).append(device)
    slots = []
    for load in sorted(pattern, key=lambda load: -load.count):
        devices = tuple(by_steps[load.steps].pop(0) for _ in range(load.count))
        slots += [_Slot(shape, devices) for shape in load.shapes]
    return slots


def _abstract(slots: list[_Slot], left: list[int], then: Problem, now: Problem) -> Pattern:
    """Return places as a pattern of another problem; those for shapes that it does not have are left out."""
    loads: dict[tuple[int, ...], list[int]] = {}
    for index, slot in enumerate(slots):
        number = now.number_of(then.shapes[slot.shape])
        if number is not None:
            key = slot.devices or (-1 - index,)
            loads.setdefault(key, []).append(number)
    return tuple(
        Load(0, 0, tuple(shapes))
        if devices[0] < 0
        else Load(now.steps_of(left[devices[0]]), len(devices), tuple(shapes))
        for devices, shapes in loads.items()
    )
