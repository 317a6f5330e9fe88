# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How several resource classes share one provider: rules that single inventories cannot say.

A GPU that offers several types of vGPU has an inventory of each, and what it carries already decides what it can still
take. Three rules, all pure:

* :class:`OneType`: whatever is there first fixes the type until the last of it is gone (time-sliced vGPUs);
* :class:`Budget`: every unit costs so much of one budget (framebuffer);
* :class:`Slices`: every unit takes slices of compute and a place among the slices of memory, at one of a few starts
  (NVIDIA's Multi-Instance GPU; ``nvidia-smi mig -lgipp`` lists places as ``{start,start...}:size``).

Each answers the same two questions: is this allowed, and how many more of one class would be.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jsonschema

from accelsched import errors

NO_LIMIT = 1 << 62
"""A ceiling that limits nothing: no inventory's capacity is more."""

_MOST = 0x7FFFFFFF  # units, as in inventories
_MANY = 256  # classes of one rule
_MOST_SLICES = 16  # of memory. The hardware has 8; arranging costs up to 2 ** slices.

_CLASS = r"^[A-Z0-9_]{1,255}\Z"
_WHOLE = {"type": "integer", "minimum": 1, "maximum": _MOST}
_SLICE_COUNT = {"type": "integer", "minimum": 1, "maximum": _MOST_SLICES}


def _variant(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "if": {"properties": {"type": {"const": name}}},
        "then": {
            "properties": {"type": True, **properties},
            "required": ["type", *properties],
            "additionalProperties": False,
        },
    }


def _by_class(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "patternProperties": {_CLASS: values},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": _MANY,
    }


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"enum": ["one_type", "budget", "slices"]}},
    "required": ["type"],
    "allOf": [
        _variant(
            "one_type",
            resource_classes={
                "type": "array",
                "items": {"type": "string", "pattern": _CLASS},
                "uniqueItems": True,
                "minItems": 1,
                "maxItems": _MANY,
            },
        ),
        _variant("budget", budget=_WHOLE, costs=_by_class(_WHOLE)),
        _variant(
            "slices",
            memory_slices=_SLICE_COUNT,
            compute_slices=_SLICE_COUNT,
            profiles=_by_class(
                {
                    "type": "object",
                    "properties": {
                        "memory_slices": _SLICE_COUNT,
                        "compute_slices": _SLICE_COUNT,
                        "starts": {
                            "type": "array",
                            "items": {"type": "integer", "minimum": 0, "maximum": _MOST_SLICES - 1},
                            "uniqueItems": True,
                            "minItems": 1,
                            "maxItems": _MOST_SLICES,
                        },
                    },
                    "required": ["memory_slices", "compute_slices", "starts"],
                    "additionalProperties": False,
                }
            ),
        ),
    ],
}
_validator = jsonschema.Draft202012Validator(SCHEMA)


class Position(NamedTuple):
    """Where one unit of a class sits: the first of the memory slices that it takes."""

    resource_class: str
    start: int


@dataclasses.dataclass(frozen=True)
class Held:
    """What a provider carries: units by class, and the positions of those that have one."""

    amounts: Mapping[str, int]
    positions: frozenset[Position] = frozenset()

    def plus(self, more: Mapping[str, int]) -> Held:
        """Return what it would carry with some more units, which have no positions yet."""
        return Held(
            {name: self.amounts.get(name, 0) + more.get(name, 0) for name in {*self.amounts, *more}}, self.positions
        )


@dataclasses.dataclass(frozen=True)
class OneType:
    """One class at a time."""

    classes: frozenset[str]

    def allows(self, held: Held) -> bool:
        """Tell whether all of this may be held at once."""
        return sum(held.amounts.get(name, 0) > 0 for name in self.classes) <= 1

    def room(self, held: Held, name: str) -> int:
        """Return how many more units of one class may be added to what is held."""
        others = any(held.amounts.get(other, 0) for other in self.classes if other != name)
        return 0 if others else NO_LIMIT

    def __str__(self) -> str:
        return "one type at a time"

    def document(self) -> dict[str, Any]:
        """Return the rule as JSON has it."""
        return {"type": "one_type", "resource_classes": sorted(self.classes)}


@dataclasses.dataclass(frozen=True)
class Budget:
    """Sizes share a budget; both in one unit of the operator's choice, e.g. MiB."""

    budget: int
    costs: Mapping[str, int]

    @property
    def classes(self) -> frozenset[str]:
        """The classes that share it."""
        return frozenset(self.costs)

    def allows(self, held: Held) -> bool:
        """Tell whether all of this may be held at once."""
        return self._left(held) >= 0

    def room(self, held: Held, name: str) -> int:
        """Return how many more units of one class may be added to what is held."""
        return max(0, self._left(held) // self.costs[name])

    def _left(self, held: Held) -> int:
        return self.budget - sum(cost * held.amounts.get(name, 0) for name, cost in self.costs.items())

    def __str__(self) -> str:
        return f"sizes share a budget of {self.budget}"

    def document(self) -> dict[str, Any]:
        """Return the rule as JSON has it."""
        return {"type": "budget", "budget": self.budget, "costs": dict(sorted(self.costs.items()))}


@dataclasses.dataclass(frozen=True)
class Profile:
    """What one unit of a class takes."""

    memory_slices: int
    compute_slices: int
    starts: tuple[int, ...]  # ascending

    def at(self, start: int) -> int:
        """Return the memory slices taken from a start on: one bit a slice."""
        return ((1 << self.memory_slices) - 1) << start

    def most(self, taken: int) -> int:
        """Return how many units fit beside the slices that are taken: one bit a slice.

        All are of one length, so taking every place that begins early enough is best (interval scheduling, earliest
        end first).
        """
        count = 0
        for start in self.starts:
            if not taken & self.at(start):
                taken |= self.at(start)
                count += 1
        return count


@dataclasses.dataclass(frozen=True)
class Slices:
    """Slices of compute, which are counted, and of memory, which have places."""

    memory_slices: int
    compute_slices: int
    profiles: Mapping[str, Profile]

    @property
    def classes(self) -> frozenset[str]:
        """The classes that share them."""
        return frozenset(self.profiles)

    def allows(self, held: Held) -> bool:
        """Tell whether all of this may be held at once: what has no position yet can be given one."""
        return self._compute_left(held) >= 0 and bool(self._arrangements(held))

    def room(self, held: Held, name: str) -> int:
        """Return how many more units of one class may be added to what is held."""
        profile = self.profiles[name]
        places = max((profile.most(taken) for taken in self._arrangements(held)), default=0)
        return max(0, min(places, self._compute_left(held) // profile.compute_slices))

    def place(self, held: Held) -> tuple[Position, ...] | None:
        """Choose positions for what is held and has none.

        Of all ways, one that leaves room for most of the largest class; among those, of the next largest, and so on.
        The same question always gets the same answer.

        :returns: None when there is no way
        """
        if self._compute_left(held) < 0:
            return None
        order = self._largest_first()
        ways = self._arrangements(held)
        best = max(ways, key=lambda taken: (*(self.profiles[name].most(taken) for name in order), -taken), default=None)
        return None if best is None else ways[best]

    def valid(self, position: Position) -> bool:
        """Tell whether a position is one of this rule's."""
        profile = self.profiles.get(position.resource_class)
        return profile is not None and position.start in profile.starts

    def _largest_first(self) -> list[str]:
        return sorted(
            self.profiles,
            key=lambda name: (-self.profiles[name].memory_slices, -self.profiles[name].compute_slices, name),
        )

    def _compute_left(self, held: Held) -> int:
        return self.compute_slices - sum(
            profile.compute_slices * held.amounts.get(name, 0) for name, profile in self.profiles.items()
        )

    def _arrangements(self, held: Held) -> dict[int, tuple[Position, ...]]:
        """Return every set of memory slices that may end up taken, with one way to get there.

        Ways that take the same slices are the same to whoever comes next, so one of each is kept: at most
        ``2 ** memory_slices``.
        """
        taken = 0
        for position in held.positions:
            if not self.valid(position) or taken & (here := self.profiles[position.resource_class].at(position.start)):
                return {}
            taken |= here
        placed = Counter(position.resource_class for position in held.positions)
        missing = {name: held.amounts.get(name, 0) - placed[name] for name in self._largest_first()}
        if sum(self.profiles[name].memory_slices * max(0, count) for name, count in missing.items()) > (
            self.memory_slices - taken.bit_count()
        ):
            return {}
        ways: dict[int, tuple[Position, ...]] = {taken: ()}
        for name, count in missing.items():
            profile = self.profiles[name]
            for _ in range(count):
                further: dict[int, tuple[Position, ...]] = {}
                for before, positions in ways.items():
                    for start in profile.starts:
                        if not before & profile.at(start):
                            further.setdefault(before | profile.at(start), (*positions, Position(name, start)))
                ways = further
        return ways

    def __str__(self) -> str:
        return f"{self.compute_slices} compute and {self.memory_slices} memory slices with positions"

    def document(self) -> dict[str, Any]:
        """Return the rule as JSON has it."""
        return {
            "type": "slices",
            "memory_slices": self.memory_slices,
            "compute_slices": self.compute_slices,
            "profiles": {
                name: {
                    "memory_slices": profile.memory_slices,
                    "compute_slices": profile.compute_slices,
                    "starts": list(profile.starts),
                }
                for name, profile in sorted(self.profiles.items())
            },
        }


Rule = OneType | Budget | Slices


class Partition(NamedTuple):
    """A provider's rule and the positions taken under it."""

    rule: Rule
    positions: frozenset[Position] = frozenset()


def ceilings(rule: Rule, held: Held) -> dict[str, int]:
    """Return for each class of a rule the most that may be held of it, all else as it is.

    A class of which nothing may be added has what is held of it as its ceiling, even when the rule is broken.
    """
    return {name: min(NO_LIMIT, held.amounts.get(name, 0) + rule.room(held, name)) for name in sorted(rule.classes)}


def parse(document: Mapping[str, Any]) -> Rule:
    """Return the rule that a document of :data:`SCHEMA` says.

    :raises accelsched.errors.InvalidError: saying what is wrong with it
    """
    return _parse(json.dumps(document, sort_keys=True))


@functools.lru_cache(maxsize=1024)  # a fleet has many GPUs and few models
def _parse(text: str) -> Rule:
    document = json.loads(text)
    fault = jsonschema.exceptions.best_match(_validator.iter_errors(document))
    if fault is not None:
        where = ".".join(str(part) for part in fault.absolute_path)
        raise errors.InvalidError(f"capacity rule{': ' + where if where else ''}: {fault.message[:500]}")
    if document["type"] == "one_type":
        return OneType(frozenset(document["resource_classes"]))
    if document["type"] == "budget":
        return Budget(int(document["budget"]), _whole(document["costs"].items()))
    profiles = {
        name: Profile(
            int(profile["memory_slices"]), int(profile["compute_slices"]), tuple(sorted(map(int, profile["starts"])))
        )
        for name, profile in document["profiles"].items()
    }
    rule = Slices(int(document["memory_slices"]), int(document["compute_slices"]), profiles)
    for name, profile in profiles.items():
        if profile.compute_slices > rule.compute_slices:
            raise errors.InvalidError(f"capacity rule: {name} takes more compute slices than there are")
        if profile.starts[-1] + profile.memory_slices > rule.memory_slices:
            raise errors.InvalidError(f"capacity rule: {name} would end after the last memory slice")
    return rule


def _whole(amounts: Iterable[tuple[str, float]]) -> dict[str, int]:
    """Return amounts as integers; JSON does not tell 4 from 4.0."""
    return {name: int(amount) for name, amount in amounts}
