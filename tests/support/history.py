# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether what the clients of a resource database were answered can all be true.

Clients write down each request with the moments, of one clock, at which it began and was answered. What happened,
happened at one instant in between; a write without an answer may have happened at any instant after its beginning, or
never. The functions here look for what no order of such instants explains, and return it as sentences; nothing found is
an empty list.

Three things are looked at: *registers*, which hold what was last written to them; *generations*, which only grow and of
which each names one content; *amounts*, whose sums are bounded by what consumers may have held.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

ALWAYS = -math.inf
"""When the state before the history was written."""

NEVER = math.inf
"""When a request that got no answer was answered."""

Key = Hashable
Value = Any  # hashable in registers and contents


@dataclasses.dataclass(frozen=True)
class Write:
    """A write of ``value`` to a register, None for taking it away; ``ended`` is NEVER without an answer."""

    key: Key
    value: Value
    began: float
    ended: float


@dataclasses.dataclass(frozen=True)
class Read:
    """A read that found ``value`` in a register, None for nothing."""

    key: Key
    value: Value
    began: float
    ended: float


@dataclasses.dataclass(frozen=True)
class Sight:
    """An answer in which a provider had a generation, with as much of its content as the answer showed.

    ``made`` is true when the request itself made that generation: it was lower before. ``parts`` maps names, such as
    ``traits``, to contents.
    """

    provider: str
    generation: int
    began: float
    ended: float
    made: bool = False
    parts: Mapping[str, Value] = dataclasses.field(default_factory=dict)


def registers(writes: Iterable[Write], reads: Iterable[Read]) -> list[str]:
    """Find registers whose reads fit no order of the writes (linearizability).

    Each value but None is written to a register once, and what was taken away never comes back. Then a write and the
    reads of its value are one cluster, and the clusters can be put in an order exactly when no two *forward zones*
    overlap and no *backward zone* lies within a forward one: P. B. Gibbons, E. Korach, "Testing Shared Memories", SIAM
    J. Comput. 26 (1997). A register without a write that began ALWAYS holds None at first.
    """
    written: dict[Key, list[Write]] = defaultdict(list)
    read: dict[Key, list[Read]] = defaultdict(list)
    for write in writes:
        written[write.key].append(write)
    for one in reads:
        read[one.key].append(one)
    return [anomaly for key in written.keys() | read.keys() for anomaly in _register(key, written[key], read[key])]


@dataclasses.dataclass
class _Cluster:
    value: Value
    began: float  # of the write
    first_end: float  # of the write and its reads
    last_begin: float
    was_read: bool = False

    def add(self, one: Read) -> None:
        self.first_end = min(self.first_end, one.ended)
        self.last_begin = max(self.last_begin, one.began)
        self.was_read = True

    @property
    def is_forward(self) -> bool:
        return self.first_end < self.last_begin


def _register(key: Key, writes: Sequence[Write], reads: Sequence[Read]) -> list[str]:
    clusters: dict[Value, _Cluster] = {}
    removal: _Cluster | None = None
    for write in writes:
        if write.value is None and write.began != ALWAYS:
            # Of several that took it away one did; it was gone when the first of them was answered.
            removal = removal or _Cluster("nothing any more", write.began, write.ended, write.began)
            removal.began = removal.last_begin = min(removal.began, write.began)
            removal.first_end = min(removal.first_end, write.ended)
        elif write.value in clusters:
            raise ValueError(f"{write.value} is written to {key} twice")
        else:
            clusters[write.value] = _Cluster(write.value, write.began, write.ended, write.began)
    if not any(write.began == ALWAYS for write in writes):
        clusters[None] = _Cluster("nothing yet", ALWAYS, ALWAYS, ALWAYS)
    # From then on it is certain that a value is or was there: whoever finds nothing finds it taken away.
    first_value = min(
        [cluster.first_end for value, cluster in clusters.items() if value is not None]
        + [one.ended for one in reads if one.value is not None]
        + ([] if removal is None else [removal.first_end]),
        default=NEVER,
    )
    found: list[str] = []
    for one in reads:
        cluster = clusters.get(one.value)
        if one.value is None and removal is not None and not (None in clusters and one.began < first_value):
            cluster = removal
        if cluster is None:
            found.append(f"{key}: a read found {one.value}, which nobody wrote")
        elif one.ended < cluster.began:
            found.append(f"{key}: a read found {cluster.value} before its write began")
        else:
            cluster.add(one)
    if removal is not None:
        if removal.first_end < NEVER:
            removal.last_begin = NEVER  # it stays like this
        clusters["nothing any more"] = removal
    happened = [cluster for cluster in clusters.values() if cluster.first_end < NEVER or cluster.was_read]
    forward = sorted((c for c in happened if c.is_forward), key=lambda c: c.first_end)
    backward = [c for c in happened if not c.is_forward]
    for i, zone in enumerate(forward):
        for other in forward[i + 1 :]:
            if other.first_end < zone.last_begin:
                found.append(f"{key}: {zone.value} was there before and after {other.value}")
        found += [
            f"{key}: {zone.value} was there before and after {other.value}"
            for other in backward
            if zone.first_end < other.last_begin and other.first_end < zone.last_begin
        ]
    return found


def generations(sights: Iterable[Sight]) -> list[str]:
    """Find generations that were given out twice, went back, or were seen too late or too early."""
    by_provider: dict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        by_provider[sight.provider].append(sight)
    return [anomaly for provider, some in by_provider.items() for anomaly in _generations(provider, some)]


def _generations(provider: str, sights: list[Sight]) -> list[str]:
    found: list[str] = []
    makers: dict[int, Sight] = {}
    for sight in sights:
        if sight.made and makers.setdefault(sight.generation, sight) is not sight:
            found.append(f"{provider}: generation {sight.generation} was made twice")
    # Each is later than whatever was seen before it began.
    by_end = iter(sorted(sights, key=lambda sight: sight.ended))
    past = next(by_end, None)
    newest = -1
    for sight in sorted(sights, key=lambda sight: sight.began):
        while past is not None and past.ended < sight.began:
            newest = max(newest, past.generation)
            past = next(by_end, None)
        if sight.generation < newest or (sight.made and sight.generation == newest):
            what = "made" if sight.made else "seen"
            found.append(f"{provider}: generation {sight.generation} was {what} after {newest} had been seen")
    return found


def contents(sights: Iterable[Sight], lost: Iterable[Sight], parts: Iterable[str]) -> list[str]:
    """Find answers in which a part of a provider was not what the last write of it, by generation, had made it.

    :param sights: one that ``made`` its generation wrote the parts that it has, and no others
    :param lost: writes without an answer, with the generation that they would have made
    """
    seen: dict[str, list[Sight]] = defaultdict(list)
    unanswered: dict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        seen[sight.provider].append(sight)
    for sight in lost:
        unanswered[sight.provider].append(sight)
    return [
        anomaly
        for provider, some in seen.items()
        for part in parts
        for anomaly in _contents(provider, part, some, unanswered[provider])
    ]


def _contents(provider: str, part: str, seen: Sequence[Sight], unanswered: Sequence[Sight]) -> list[str]:
    made = [sight for sight in seen if sight.made]
    taken = {sight.generation for sight in made}
    writes = [(sight.generation, sight.parts[part], True) for sight in made if part in sight.parts]
    writes += [
        (sight.generation, sight.parts[part], False)
        for sight in unanswered
        if part in sight.parts and sight.generation not in taken
    ]
    writes.sort(key=lambda write: write[0])
    found: list[str] = []
    for sight in seen:
        if sight.made or part not in sight.parts:
            continue
        possible: set[Value] = set()
        for generation, content, certain in writes:
            if generation > sight.generation:
                break
            if certain:
                possible = {content}
            elif possible:
                possible.add(content)
        if possible and sight.parts[part] not in possible:
            found.append(
                f"{provider}: at generation {sight.generation} {part} was {sight.parts[part]}, "
                f"not {' or '.join(map(str, possible))}"
            )
    return found


Place = Hashable
"""A class of a provider: what amounts are taken from."""


@dataclasses.dataclass(frozen=True)
class Use:
    """An answer that so much of a place was used."""

    place: Place
    used: int
    began: float
    ended: float


@dataclasses.dataclass(frozen=True)
class Offer:
    """An answer to who has so much free, and whether the place was in it."""

    place: Place
    amount: int
    is_offered: bool
    began: float
    ended: float


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, granted or refused for want of room: what each consumer was to hold of each place from then on."""

    wanted: Mapping[Key, Mapping[Place, int]]
    is_granted: bool
    began: float
    ended: float


class Holdings:
    """What consumers may have held of each place at a time, and how much may have been there."""

    def __init__(self, held: Iterable[Write], capacities: Iterable[Write]) -> None:
        """Take what was written.

        :param held: registers of consumers, whose values map places to amounts, None for nothing
        :param capacities: registers of places, whose values are the amounts that there are
        """
        self._held: dict[Key, list[Write]] = defaultdict(list)
        self._holders: dict[Place, set[Key]] = defaultdict(set)
        self._capacities: dict[Place, list[Write]] = defaultdict(list)
        for write in held:
            self._held[write.key].append(write)
            for place in _amounts(write):
                self._holders[place].add(write.key)
        for write in capacities:
            self._capacities[write.key].append(write)

    def held(self, place: Place, began: float, ended: float, consumers: Iterable[Key] | None = None) -> tuple[int, int]:
        """Return the least and the most that may have been held together at one instant of a time."""
        least = most = 0
        for consumer in self._holders[place] if consumers is None else consumers:
            amounts = [_amounts(write).get(place, 0) for write in _possible(self._held[consumer], began, ended)]
            least += min(amounts)
            most += max(amounts)
        return least, most

    def capacity(self, place: Place, began: float, ended: float) -> tuple[int, int]:
        """Return the least and the most that may have been there."""
        amounts = [write.value for write in _possible(self._capacities[place], began, ended)]
        known = [amount for amount in amounts if isinstance(amount, int)]
        return (min(known) if len(known) == len(amounts) else 0), max(known, default=0)

    def uses(self, uses: Iterable[Use]) -> list[str]:
        """Find usages that are not the sum of what consumers may have held, or more than could ever be given out."""
        found: list[str] = []
        for use in uses:
            _, ever = self.capacity(use.place, ALWAYS, NEVER)
            _, at_first = self.held(use.place, ALWAYS, ALWAYS)
            if use.used > max(ever, at_first):
                found.append(f"{use.place}: {use.used} were used, where there were never more than {ever}")
            least, most = self.held(use.place, use.began, use.ended)
            if not least <= use.used <= most:
                found.append(f"{use.place}: {use.used} were used, where {least} to {most} may have been held")
        return found

    def offers(self, offers: Iterable[Offer]) -> list[str]:
        """Find places that were offered though they were certainly full, or not though they certainly had room."""
        found: list[str] = []
        for offer in offers:
            least, most = self.held(offer.place, offer.began, offer.ended)
            least_there, most_there = self.capacity(offer.place, offer.began, offer.ended)
            if offer.is_offered and least + offer.amount > most_there:
                found.append(f"{offer.place}: {offer.amount} were offered, {least} of {most_there} being held")
            if not offer.is_offered and most + offer.amount <= least_there:
                found.append(f"{offer.place}: {offer.amount} were not offered, {most} of {least_there} being held")
        return found

    def claims(self, claims: Iterable[Claim]) -> list[str]:
        """Find claims that were granted what others certainly held, or refused what was certainly free."""
        found: list[str] = []
        for claim in claims:
            asked: dict[Place, int] = defaultdict(int)
            for amounts in claim.wanted.values():
                for place, amount in amounts.items():
                    asked[place] += amount
            has_room = True
            for place, amount in asked.items():
                others = self._holders[place] - claim.wanted.keys()
                least, most = self.held(place, claim.began, claim.ended, others)
                least_there, most_there = self.capacity(place, claim.began, claim.ended)
                has_room &= most + amount <= least_there
                if claim.is_granted and least + amount > most_there and self._grows(place, claim, amount):
                    found.append(f"{place}: {amount} were granted, others holding {least} of {most_there}")
            if not claim.is_granted and has_room:
                found.append(f"{dict(asked)} were refused, though all of it was free")
        return found

    def _grows(self, place: Place, claim: Claim, amount: int) -> bool:
        """Return whether it takes more than its consumers had: who takes less may, on a place that shrank."""
        before = 0
        for consumer in claim.wanted:
            own = [write for write in self._held[consumer] if write.began != claim.began]
            before += max(
                (_amounts(write).get(place, 0) for write in _possible(own, claim.began, claim.ended)), default=0
            )
        return amount > before


def _amounts(write: Write) -> Mapping[Place, int]:
    return write.value if isinstance(write.value, Mapping) else {}


def _possible(writes: Sequence[Write], began: float, ended: float) -> list[Write]:
    """Return those writes whose value may have been there at an instant of a time.

    A register without a write that began ALWAYS holds None at first.
    """
    if not any(write.began == ALWAYS for write in writes):
        writes = [Write(None, None, ALWAYS, ALWAYS), *writes]
    latest = max((write.began for write in writes if write.ended < began), default=ALWAYS)
    return [write for write in writes if write.began <= ended and not write.ended < latest]
