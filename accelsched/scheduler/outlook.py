# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the fleet is expected to be asked for: the shapes of requests, and how often each comes.

Weighers that look further than the request at hand, such as those against fragmentation, ask the outlook. It knows what
came before, never what comes next.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from accelsched.placement.candidates import CandidateQuery, RequestGroup
from accelsched.scheduler.request import HOST_CLASSES

if TYPE_CHECKING:
    from accelsched.scheduler.planning.plan import Plan


@dataclasses.dataclass(frozen=True)
class DeviceNeed:
    """What a request asks of devices: ``count`` of them, each with ``amount`` of a resource class to give."""

    resource_class: str
    amount: int
    count: int


@dataclasses.dataclass(frozen=True)
class Shape:
    """What requests that are alike to the packing of the fleet have in common.

    :ivar own: what is asked of the host itself, by class and in the order of the classes
    :ivar need: what is asked of devices; None for none
    :ivar required: traits of these devices, an AND of ORs
    :ivar forbidden: traits that these devices may not have
    """

    own: tuple[tuple[str, int], ...]
    need: DeviceNeed | None
    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    @classmethod
    def of(cls, query: CandidateQuery) -> Shape:
        """Return the shape of a request. Of several kinds of devices, the one that most are asked of counts."""
        own: Counter[str] = Counter()
        kinds: dict[object, list[RequestGroup]] = {}
        for group in query.groups:
            own.update({name: amount for name, amount in group.resources.items() if name in HOST_CLASSES})
            if any(name not in HOST_CLASSES for name in group.resources):
                kinds.setdefault(group.alike(), []).append(group)
        host = tuple(sorted(own.items()))
        if not kinds:
            return cls(host, None)
        groups = max(kinds.values(), key=len)
        name, amount = next((n, a) for n, a in groups[0].resources.items() if n not in HOST_CLASSES)
        return cls(host, DeviceNeed(name, amount, len(groups)), groups[0].required, groups[0].forbidden)

    def __hash__(self) -> int:
        """Return a hash that is worked out once: mixes and plans look shapes up all the time."""
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.own, self.need, self.required, self.forbidden))

    @property
    def device_group(self) -> RequestGroup:
        """Return a group that asks of one device what this shape asks of each."""
        need = self.need
        resources = {need.resource_class: need.amount} if need else {}
        return RequestGroup("device", resources, self.required, self.forbidden)


class Mix:
    """Shapes and their frequencies. Never changes; a new one is made instead."""

    def __init__(self, counts: Mapping[Shape, float]) -> None:
        """Bring counts to shares."""
        whole = sum(counts.values())
        # By falling frequency; equals in the order in which they came, so that the same history gives the same mix.
        self.shares: dict[Shape, float] = {
            shape: count / whole for shape, count in sorted(counts.items(), key=lambda item: -item[1])
        }

    @functools.cached_property
    def main_class(self) -> str | None:
        """Return the class of devices that is asked for most often, None when none is."""
        asked: Counter[str] = Counter()
        for shape, share in self.shares.items():
            if shape.need:
                asked[shape.need.resource_class] += share  # type: ignore[assignment]
        return asked.most_common(1)[0][0] if asked else None

    def typical(self, covering: float) -> Mix:
        """Return the most frequent shapes that together make up at least a share of all."""
        chosen: dict[Shape, float] = {}
        covered = 0.0
        for shape, share in self.shares.items():
            chosen[shape] = share
            covered += share
            if covered >= covering:
                break
        return Mix(chosen)

    def without(self, classes: Iterable[str]) -> Mix:
        """Return the mix of shapes that differ in more than what they ask of hosts of some classes."""
        dropped = frozenset(classes)
        counts: Counter[Shape] = Counter()
        for shape, share in self.shares.items():
            own = tuple((name, amount) for name, amount in shape.own if name not in dropped)
            counts[dataclasses.replace(shape, own=own)] += share  # type: ignore[assignment]
        return Mix(counts)


class Outlook:
    """The mix to expect, from a history given beforehand or from what was asked for so far; and the plan made from it.

    :ivar version: differs whenever the mix or the plan as a whole does: scores made with it before are worth nothing
    """

    def __init__(self, history: Mapping[Shape, float] | None = None) -> None:
        self.version = 0
        self.mix = Mix(history) if history else None
        self.plan: Plan | None = None
        self._learning = not history
        self._seen: Counter[Shape] = Counter()
        self._next = 1

    def saw(self, shape: Shape) -> None:
        """Learn from one request, unless a history was given."""
        if not self._learning:
            return
        self._seen[shape] += 1
        # At first every request teaches much; later what came so far is known well, and scores can be kept.
        if self._seen.total() >= self._next:
            self._next = max(self._next + 1, int(self._next * 1.1))
            self.mix = Mix(self._seen)
            self.version += 1

    @property
    def learning(self) -> bool:
        """Tell whether the mix is learned from what is asked for, for want of a history."""
        return self._learning

    def follow(self, plan: Plan | None) -> None:
        """Take over a new plan."""
        self.plan = plan
        self.version += 1

    def without_plan(self) -> Outlook:
        """Return the same mix without a plan."""
        same = copy.copy(self)
        same.plan = None
        return same
