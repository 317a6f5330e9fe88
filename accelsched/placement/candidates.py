# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Allocation candidates: which providers could serve a request together.

Two steps. :func:`narrow` asks the whole fleet at once, by vectors, which trees can serve each part of the request at
all, and keeps how many trees each part removed. :func:`expand` walks one of the trees that are left and yields the
ways to serve all parts together, lazily. Parts that are alike are interchangeable: eight groups of one GPU on a host
with eight are one candidate, not 40,320.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from accelsched.placement.partitioning import Held
from accelsched.placement.picture import NONE, Ints, Mask, Picture

# Trees that are looked at together: enough for vectors to pay, few enough to stop early at a limit.
_BLOCK = 512

Usage = Mapping[str, Ints]
"""Usage to assume instead of the picture's, by class: int64[rows of the class]."""


@dataclasses.dataclass(frozen=True)
class RequestGroup:
    """One part of a request.

    With a suffix, one provider serves all of it. The unsuffixed group ("") may be spread over the providers of a tree,
    and over those that share with it. ``required`` is an AND of ORs of traits; ``member_of`` one of aggregate uuids, of
    the provider or its root.
    """

    suffix: str = ""
    resources: Mapping[str, int] = dataclasses.field(default_factory=dict)
    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()
    member_of: tuple[frozenset[str], ...] = ()
    forbidden_aggregates: frozenset[str] = frozenset()
    in_tree: str | None = None
    provider: str | None = None  # uuid of the one that is to serve it, when it has a suffix

    def alike(self) -> object:
        """Return what is equal for groups that differ in nothing but their suffix."""
        return (
            frozenset(self.resources.items()),
            frozenset(self.required),
            self.forbidden,
            frozenset(self.member_of),
            self.forbidden_aggregates,
            self.in_tree,
            self.provider,
        )


@dataclasses.dataclass(frozen=True)
class RootAggregates:
    """Aggregates that a tree's root must be in one of, or in none of; both sides count, None asks nothing."""

    what: str  # for people: zone az1, project's aggregates …
    any_of: frozenset[str] | None = None
    none_of: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class CandidateQuery:
    """A whole request. ``isolate``: no two suffixed groups share a provider."""

    groups: tuple[RequestGroup, ...]
    isolate: bool = False
    same_subtree: tuple[frozenset[str], ...] = ()
    root_required: frozenset[str] = frozenset()
    root_forbidden: frozenset[str] = frozenset()
    root_aggregates: tuple[RootAggregates, ...] = ()
    limit: int | None = None


class Candidate(NamedTuple):
    """One way to serve a request: slots of the picture, and amounts by slot and class."""

    root: int
    serving: Mapping[str, tuple[int, ...]]  # by group suffix: a provider for each of its classes, in their order
    amounts: Mapping[tuple[int, str], int]

    @property
    def mappings(self) -> dict[str, tuple[int, ...]]:
        """Return the providers of each group, by its suffix, each once."""
        return {suffix: tuple(dict.fromkeys(slots)) for suffix, slots in self.serving.items()}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one part of the request left over.

    ``most_free`` and ``most_free_on`` (a slot) say, for an amount, how close the closest came.
    """

    what: str  # for people: VGPU of group 1, trait HW_GPU_API_VULKAN …
    why: str  # what is wrong with the trees that were removed
    left: int  # trees
    removed: int  # trees
    asked: int | None = None
    most_free: int | None = None
    most_free_on: int | None = None


@dataclasses.dataclass(frozen=True)
class GroupOptions:
    """Which providers may serve one group, by its classes; "" stands for the class of a group without resources."""

    here: Mapping[str, Mask]  # in their own tree: bool[slots]
    elsewhere: Mapping[
        str, Mapping[int, Mask]
    ]  # by the slot of one that shares: the other trees, bool[slots] over roots
    required: tuple[Mask, ...]  # for the unsuffixed group, whose traits may be spread: who has each, bool[slots]
    # The same as ``here``, for looking at one slot after the other.
    flags: Mapping[str, bytes]


@dataclasses.dataclass(frozen=True)
class Narrowed:
    """Where a request could go."""

    query: CandidateQuery
    trees: Mask  # bool[slots]: true at roots whose tree may serve the request
    stages: tuple[Stage, ...]
    options: tuple[GroupOptions, ...]  # by group
    twins: tuple[int | None, ...]  # by group: the nearest earlier one that is like it
    followers: tuple[int, ...]  # by group: how many later ones are like it
    repeated: frozenset[str]  # classes that more than one group asks for, whose amounts may have to fit together
    # Whether it asks for several classes that capacity rules are about. For one alone its ceiling says enough.
    ruled: bool

    @property
    def independent(self) -> bool:
        """Tell whether any ways to serve the groups one by one serve them together too."""
        bound = self.query.isolate and sum(1 for group in self.query.groups if group.suffix) > 1
        return not (bound or self.repeated or self.ruled or self.query.same_subtree)


def rooted(picture: Picture, query: CandidateQuery) -> Mask:
    """Tell which slots are roots with the traits and aggregates that a query wants of them: bool[slots]."""
    roots = picture.roots()
    for mask, _what, _why in _of_roots(picture, query):
        roots &= mask
    return roots


def narrow(picture: Picture, query: CandidateQuery, among: Mask | None = None) -> Narrowed:
    """Find the trees that can serve every part of a request taken by itself.

    :param among: roots to look at, bool[slots]; all when None
    """
    trees = picture.roots() if among is None else picture.roots() & among
    stages: list[Stage] = []
    options: list[GroupOptions] = []

    def keep(mask: Mask, what: str, why: str, **shortfall: int | None) -> None:
        nonlocal trees
        before = int(np.count_nonzero(trees))
        trees = trees & mask
        left = int(np.count_nonzero(trees))
        stages.append(Stage(what, why, left, before - left, **shortfall))

    n = picture.slots
    for mask, what, why in _of_roots(picture, query):
        keep(mask, what, why)
    twins = _twins(query)
    for group, twin in zip(query.groups, twins, strict=True):
        if twin is not None:
            # What is like an earlier group removes nothing more.
            options.append(options[twin])
            continue
        of_group = f" of group {group.suffix}" if group.suffix else ""
        fit = qualities(picture, group)
        reach = _reach(picture, group)
        here: dict[str, Mask] = {}
        elsewhere: dict[str, Mapping[int, Mask]] = {}
        everything, everywhere = fit.copy(), reach
        for name, amount in group.resources.items():
            enough = picture.having_free(name, amount)
            closest = _closest(picture, name, trees, fit)
            here[name] = enough & fit
            elsewhere[name] = {slot: served for slot, served in reach.items() if enough[slot]}
            everything &= enough
            everywhere = {slot: served for slot, served in everywhere.items() if enough[slot]}
            served = _served(picture, here[name], elsewhere[name])
            keep(served, f"{name}{of_group}", f"less than {amount} free", asked=amount, **closest)
        if group.suffix:
            # One provider serves all of it, so each class may only come from one that has everything.
            here = dict.fromkeys(group.resources, everything) or {"": everything}
            elsewhere = dict.fromkeys(group.resources, everywhere) or {"": everywhere}
            served = _served(picture, everything, everywhere)
            keep(served, f"group {group.suffix}", f"no one provider with {_describe(group)}")
        elif not group.resources:
            here, elsewhere = {"": everything}, {"": everywhere}
        required: tuple[Mask, ...] = ()
        if not group.suffix and group.required:
            required = tuple(picture.traits.having_any(any_of, n) for any_of in group.required)
            together = np.logical_and.reduce([_served(picture, mask, _those_of(reach, mask)) for mask in required])
            keep(together, "traits", f"host and devices together without {_describe(group)}")
        options.append(GroupOptions(here, elsewhere, required, {name: mask.tobytes() for name, mask in here.items()}))
    asked = Counter(name for group in query.groups for name in group.resources)
    repeated = frozenset(name for name, times in asked.items() if times > 1)
    followers = [0] * len(twins)
    for index in reversed(range(len(twins))):
        if (twin := twins[index]) is not None:
            followers[twin] = followers[index] + 1
    ruled = sum(name in picture.classes and picture.classes[name].has_ceilings() for name in asked) > 1
    return Narrowed(query, trees, tuple(stages), tuple(options), tuple(twins), tuple(followers), repeated, ruled)


def expand(
    picture: Picture,
    narrowed: Narrowed,
    root: int,
    *,
    usage: Usage | None = None,
    score: Callable[[int], float] | None = None,
) -> Iterator[Candidate]:
    """Yield the ways in which one tree can serve a request.

    :param root: slot of the tree's root
    :param usage: usage to assume, for decisions that build on others not yet written down
    :param score: higher is tried first, given a slot; without it the order of slots
    """
    query = narrowed.query
    members = picture.tree[root]
    choices = [
        _ways(group, options, [_serving(options, name, root, members, score) for name in options.flags])
        for group, options in zip(query.groups, narrowed.options, strict=True)
    ]
    # What was asked for once only fits by itself; nobody has to add it up.
    added_up = narrowed.repeated if usage is None else None
    taken: dict[tuple[int, str], int] = {}
    picks: list[int] = []
    suffixes = [group.suffix for group in query.groups]
    last = len(query.groups)

    def search(index: int) -> Iterator[Candidate]:
        if index == last:
            serving = {suffix: choices[i][picks[i]] for i, suffix in enumerate(suffixes)}
            candidate = Candidate(root, serving, dict(taken))
            if not query.same_subtree or _connected(picture, query, candidate):
                yield candidate
            return
        group = query.groups[index]
        # Like groups take options in one order only; any other order would be the same candidate again.
        twin = narrowed.twins[index]
        first = 0 if twin is None else picks[twin]
        # Isolated ones need another option each, so enough of them have to be left for those that follow.
        end = len(choices[index]) - (narrowed.followers[index] if query.isolate and group.suffix else 0)
        for pick in range(first, end):
            slots = choices[index][pick]
            if query.isolate and group.suffix and _occupied(query, choices, picks, slots):
                continue
            added = [
                ((slot, name), amount) for slot, (name, amount) in zip(slots, group.resources.items(), strict=False)
            ]
            if not _take(picture, taken, added, usage, added_up):
                continue
            if narrowed.ruled and not _keeps_rules(picture, taken, set(slots), usage):
                _give_back(taken, added)
                continue
            picks.append(pick)
            yield from search(index + 1)
            picks.pop()
            _give_back(taken, added)

    yield from search(0)


def find(picture: Picture, query: CandidateQuery) -> list[Candidate]:
    """Return candidates from the whole fleet, at most ``query.limit``."""
    return list(itertools.islice(_all(picture, query), query.limit))


def _all(picture: Picture, query: CandidateQuery) -> Iterator[Candidate]:
    narrowed = narrow(picture, query)
    sharing = picture.reach().keys()
    seen: set[object] = set()
    roots: list[int] = np.flatnonzero(narrowed.trees).tolist()
    if narrowed.independent:
        each = itertools.chain.from_iterable(
            _combinations(picture, narrowed, roots[start : start + _BLOCK]) for start in range(0, len(roots), _BLOCK)
        )
    else:
        each = itertools.chain.from_iterable(expand(picture, narrowed, root) for root in roots)
    for candidate in each:
        if sharing and all(slot in sharing for slots in candidate.serving.values() for slot in slots):
            # Nothing of the tree itself is in it, so another tree can have brought it already.
            key = (frozenset(candidate.serving.items()), frozenset(candidate.amounts.items()))
            if key in seen:
                continue
            seen.add(key)
        yield candidate


def _combinations(picture: Picture, narrowed: Narrowed, roots: Sequence[int]) -> Iterator[Candidate]:
    """Yield what :func:`expand` does for an independent request, for many trees at once."""
    query = narrowed.query
    trees = [picture.tree[root] for root in roots]
    members = np.fromiter(itertools.chain.from_iterable(trees), dtype=np.int64)
    tree_of = np.repeat(np.arange(len(trees)), [len(tree) for tree in trees])

    def served(options: GroupOptions, name: str) -> list[list[int]]:
        serves = options.here[name][members]
        slots = members[serves].tolist()
        ends = np.cumsum(np.bincount(tree_of[serves], minlength=len(roots))).tolist()
        lists = [slots[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        for slot, elsewhere in options.elsewhere[name].items():
            for index in np.flatnonzero(elsewhere[roots]).tolist():
                lists[index].append(slot)
        return lists

    by_group = [zip(*(served(options, name) for name in options.flags), strict=True) for options in narrowed.options]
    suffixes = [group.suffix for group in query.groups]
    asked = [tuple(group.resources.items()) for group in query.groups]
    for root, *lists in zip(roots, *by_group, strict=True):
        choices = [
            _ways(group, options, some)
            for group, options, some in zip(query.groups, narrowed.options, lists, strict=True)
        ]
        for ways in itertools.product(*choices):
            amounts = {
                (slot, name): amount
                for slots, resources in zip(ways, asked, strict=True)
                for slot, (name, amount) in zip(slots, resources, strict=False)
            }
            yield Candidate(root, dict(zip(suffixes, ways, strict=True)), amounts)


def _of_roots(picture: Picture, query: CandidateQuery) -> Iterator[tuple[Mask, str, str]]:
    """Yield what a request asks of the host itself: mask over slots, what is asked, what is wrong with the others."""
    n = picture.slots
    for trait in sorted(query.root_required):
        yield picture.traits.having(trait, n), f"trait {trait}", f"host without trait {trait}"
    for trait in sorted(query.root_forbidden):
        yield ~picture.traits.having(trait, n), f"trait {trait}", f"host with trait {trait}"
    for aggregates in query.root_aggregates:
        inside = ~picture.aggregates.having_any(aggregates.none_of, n)
        if aggregates.any_of is not None:
            inside &= picture.aggregates.having_any(aggregates.any_of, n)
        yield inside, aggregates.what, f"host not in {aggregates.what}"


def _closest(picture: Picture, name: str, trees: Mask, fit: Mask) -> dict[str, int | None]:
    """Return how much the provider with most to give has, among the trees still in."""
    columns = picture.classes.get(name)
    if columns is None or columns.size == 0:
        return {"most_free": 0, "most_free_on": None}
    row = columns.most_free()
    slot = columns.slot[row]
    # Mostly the one with most of all is among them, and nobody has to look at who else is.
    if slot == NONE or not (fit[slot] and trees[picture.root[slot]]):
        slots = columns.slot[: columns.size]
        counted = np.flatnonzero((slots != NONE) & fit[slots] & trees[picture.root[slots]])
        if not len(counted):
            return {"most_free": 0, "most_free_on": None}
        row = int(counted[np.minimum(columns.free[counted], columns.max_unit[counted]).argmax()])
    most = min(int(columns.free[row]), int(columns.max_unit[row]))
    return {"most_free": most, "most_free_on": int(columns.slot[row])}


def qualities(picture: Picture, group: RequestGroup) -> Mask:
    """Tell which providers have the traits and memberships that a group asks of each provider it uses."""
    fit = _own_qualities(picture, group)
    roots = picture.root[: picture.slots]
    # The unsuffixed group takes a root's aggregates to hold for its whole tree, as Placement does.
    if group.member_of:
        member = _member(picture, group)
        fit &= member if group.suffix else member | member[roots]
    if group.forbidden_aggregates:
        member = picture.aggregates.having_any(group.forbidden_aggregates, picture.slots)
        fit &= ~(member if group.suffix else member | member[roots])
    return fit


def _own_qualities(picture: Picture, group: RequestGroup) -> Mask:
    n = picture.slots
    if group.suffix and not (group.resources or group.required or group.member_of):
        # Nothing says which providers are meant: none, as Placement has it, rather than all.
        return np.zeros(n, dtype=np.bool_)
    fit: Mask = picture.live()
    if group.suffix:
        # The unsuffixed group's required traits may be spread over its providers.
        for any_of in group.required:
            fit &= picture.traits.having_any(any_of, n)
    for trait in group.forbidden:
        fit &= ~picture.traits.having(trait, n)
    if group.in_tree is not None:
        slot = picture.slot_of_uuid.get(group.in_tree)
        roots = picture.root[:n]
        fit &= np.zeros(n, dtype=np.bool_) if slot is None else roots == roots[slot]
    if group.provider is not None:
        slot = picture.slot_of_uuid.get(group.provider)
        fit &= np.zeros(n, dtype=np.bool_) if slot is None else np.arange(n) == slot
    return fit


def _member(picture: Picture, group: RequestGroup) -> Mask:
    member = np.ones(picture.slots, dtype=np.bool_)
    for any_of in group.member_of:
        member &= picture.aggregates.having_any(any_of, picture.slots)
    return member


def _reach(picture: Picture, group: RequestGroup) -> Mapping[int, Mask]:
    """Return the other trees that each provider which shares may serve with this group, by its slot."""
    reach = picture.reach()
    # "In this tree" rules out what comes from outside it; a suffixed group asks it of the one provider instead.
    if not reach or (group.in_tree is not None and not group.suffix):
        return {}
    fit = _own_qualities(picture, group) & _member(picture, group)
    if group.forbidden_aggregates:
        bad = picture.aggregates.having_any(group.forbidden_aggregates, picture.slots)
        fit &= ~bad
        if not group.suffix:
            reach = {slot: trees & ~bad for slot, trees in reach.items()}
    return _those_of(reach, fit)


def _those_of(reach: Mapping[int, Mask], mask: Mask) -> Mapping[int, Mask]:
    return {slot: trees for slot, trees in reach.items() if mask[slot]}


def _served(picture: Picture, here: Mask, elsewhere: Mapping[int, Mask]) -> Mask:
    """Tell which trees are served by one of their own providers or by one that shares: bool[slots] over roots."""
    served = picture.at_roots(here)
    for trees in elsewhere.values():
        served |= trees
    return served


def _describe(group: RequestGroup) -> str:
    parts = [f"{name}:{amount}" for name, amount in group.resources.items()] if group.suffix else []
    parts += [" or ".join(sorted(any_of)) for any_of in group.required]
    parts += [f"not {trait}" for trait in sorted(group.forbidden)]
    parts += ["member of " + " or ".join(sorted(any_of)) for any_of in group.member_of]
    parts += [f"uuid {group.provider}"] if group.provider else []
    return ", ".join(parts)


def _serving(
    options: GroupOptions, name: str, root: int, members: Sequence[int], score: Callable[[int], float] | None
) -> list[int]:
    """Return the providers that may serve a class of a group in one tree, best first."""
    flags = options.flags[name]
    slots = [slot for slot in members if flags[slot]]
    slots += [slot for slot, trees in options.elsewhere[name].items() if trees[root]]
    if score is not None:
        slots.sort(key=score, reverse=True)
    return slots


def _ways(group: RequestGroup, options: GroupOptions, serving: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the ways to serve one group by itself: a provider for each of its classes, in their order.

    :param serving: who may serve each class
    """
    if group.suffix:
        width = max(1, len(group.resources))
        return [(slot,) * width for slot in serving[0]]
    if not group.resources:
        return [()]
    ways = list(itertools.product(*serving))
    for mask in options.required:
        ways = [way for way in ways if any(mask[slot] for slot in way)]
    return ways


def _twins(query: CandidateQuery) -> list[int | None]:
    """Return for each group the nearest earlier one that is like it."""
    seen: dict[object, int] = {}
    twins: list[int | None] = []
    for index, group in enumerate(query.groups):
        bound = frozenset(i for i, suffixes in enumerate(query.same_subtree) if group.suffix in suffixes)
        key = (bool(group.suffix), group.alike(), bound)
        twins.append(seen.get(key))
        seen[key] = index
    return twins


def _occupied(
    query: CandidateQuery, choices: Sequence[Sequence[tuple[int, ...]]], picks: Sequence[int], slots: tuple[int, ...]
) -> bool:
    return any(query.groups[i].suffix and choices[i][pick][0] == slots[0] for i, pick in enumerate(picks))


def _take(
    picture: Picture,
    taken: dict[tuple[int, str], int],
    added: list[tuple[tuple[int, str], int]],
    usage: Usage | None,
    added_up: frozenset[str] | None,
) -> bool:
    """Add amounts to what is taken, if they all still fit together with it.

    :param added_up: the classes that have to be looked at; all when None
    """
    for done, ((slot, name), amount) in enumerate(added):
        total = taken.get((slot, name), 0) + amount
        if added_up is None or name in added_up:
            columns = picture.classes[name]
            row = columns.row_of(slot)
            used = columns.used[row] if usage is None or name not in usage else usage[name][row]
            if used + total > columns.capacity[row] or total > columns.max_unit[row]:
                _give_back(taken, added[:done])
                return False
        taken[slot, name] = total
    return True


def _keeps_rules(
    picture: Picture, taken: Mapping[tuple[int, str], int], slots: Iterable[int], usage: Usage | None
) -> bool:
    """Tell whether what is taken from some providers keeps their capacity rules."""
    for slot in slots:
        partition = picture.partitions.get(slot)
        if partition is None:
            continue
        amounts = {}
        for name in partition.rule.classes:
            columns = picture.classes.get(name)
            row = NONE if columns is None else columns.row_of(slot)
            if columns is not None and row != NONE:
                used = columns.used[row] if usage is None or name not in usage else usage[name][row]
                amounts[name] = int(used) + taken.get((slot, name), 0)
        if not partition.rule.allows(Held(amounts, partition.positions)):
            return False
    return True


def _give_back(taken: dict[tuple[int, str], int], added: list[tuple[tuple[int, str], int]]) -> None:
    for key, amount in added:
        taken[key] -= amount
        if not taken[key]:
            del taken[key]


def _connected(picture: Picture, query: CandidateQuery, candidate: Candidate) -> bool:
    """Tell whether each same_subtree set has one of its own providers above (or at) all the others."""
    for suffixes in query.same_subtree:
        slots = {slot for suffix in suffixes for slot in candidate.serving[suffix]}
        if not any(all(_is_below(picture, slot, top) for slot in slots) for top in slots):
            return False
    return True


def _is_below(picture: Picture, slot: int, top: int) -> bool:
    while slot != NONE:
        if slot == top:
            return True
        slot = int(picture.parent[slot])
    return False
