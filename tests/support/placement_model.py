# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What allocation candidates are, by trying everything: for small fleets.

Written from the documentation of Placement and from what it does, and from nothing of ours: with it answers are judged
where Placement has none. Random dialogues judge the model by Placement's answers.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from placement_exchange import Answer, Step

_REPEATED_TRAITS = 39
SHARES = "MISC_SHARES_VIA_AGGREGATE"
Query = list[tuple[str, str]]
Choice = dict[str, dict[str, str]]
"""Of each group, by suffix, which provider gives each class; a group without resources has one for the class ``""``."""


@dataclasses.dataclass(frozen=True)
class Provider:
    """A resource provider with all that candidates depend on."""

    uuid: str
    parent: str | None
    root: str
    traits: frozenset[str]
    aggregates: frozenset[str]
    inventories: dict[str, dict[str, Any]]
    usages: dict[str, int]

    @property
    def shares(self) -> bool:
        """Tell whether others can use it through aggregates."""
        return SHARES in self.traits

    def fits(self, resource_class: str, amount: int) -> bool:
        """Tell whether it has this left, as its units allow."""
        stock = self.inventories.get(resource_class)
        return (
            stock is not None
            and self.usages.get(resource_class, 0) + amount
            <= (stock["total"] - stock["reserved"]) * stock["allocation_ratio"]
            and stock["min_unit"] <= amount <= stock["max_unit"]
            and amount % stock["step_size"] == 0
        )


@dataclasses.dataclass(frozen=True)
class _Group:
    suffix: str
    resources: dict[str, int]
    required: list[frozenset[str]]
    forbidden: frozenset[str]
    member_of: list[frozenset[str]]
    not_member_of: frozenset[str]
    in_tree: str | None

    @property
    def vague(self) -> bool:
        """Tell whether nothing chooses a provider."""
        return not (self.resources or self.required or self.member_of)


def fleet(ask: Callable[[Step], Answer]) -> dict[str, Provider]:
    """Read all providers.

    :param ask: asks a server
    """
    found = {}
    for item in ask(Step("GET", "/resource_providers")).body["resource_providers"]:
        where = f"/resource_providers/{item['uuid']}"
        part = {name: ask(Step("GET", f"{where}/{name}")).body[name] for name in _PARTS}
        found[item["uuid"]] = Provider(
            item["uuid"],
            item["parent_provider_uuid"],
            item["root_provider_uuid"],
            frozenset(part["traits"]),
            frozenset(part["aggregates"]),
            part["inventories"],
            part["usages"],
        )
    return found


_PARTS = ("traits", "aggregates", "inventories", "usages")


def candidates(providers: dict[str, Provider], query: Query, minor: int) -> list[dict[str, Any]]:
    """Return the ``allocation_requests`` to a question, each candidate once, whatever limit it has.

    :param minor: the version that the question is asked in; they are returned in the form of the newest
    """
    groups = _groups(query, minor)
    asked = dict(query)
    roots = _names(asked.get("root_required", ""))
    subtrees = [value.split(",") for name, value in query if name == "same_subtree"]
    found = []
    for anchor in (each for each in providers.values() if each.parent is None):
        if not (roots[0] <= anchor.traits and not roots[1] & anchor.traits):
            continue
        for choices in itertools.product(*(list(_served(group, anchor, providers)) for group in groups)):
            choice = {group.suffix: given for group, given in zip(groups, choices, strict=True)}
            alone = [next(iter(given.values())) for suffix, given in choice.items() if suffix]
            if asked.get("group_policy") == "isolate" and len(set(alone)) < len(alone):
                continue
            if not all(_is_subtree(subtree, choice, providers) for subtree in subtrees):
                continue
            if (request := _request(groups, choice, providers)) and request not in found:
                found.append(request)
    return found


def _groups(query: Query, minor: int) -> list[_Group]:
    by_suffix: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, value in query:
        for kind in ("resources", "required", "member_of", "in_tree"):
            if name.startswith(kind):
                values = by_suffix[name.removeprefix(kind)][kind]
                if kind in ("resources", "in_tree") or (kind == "required" and minor < _REPEATED_TRAITS):
                    # The last of them counts.
                    values.clear()
                values.append(value)
    return [_group(suffix, parts) for suffix, parts in by_suffix.items()]


def _group(suffix: str, parts: dict[str, list[str]]) -> _Group:
    required, forbidden = [], set()
    for value in parts["required"]:
        if value.startswith("in:"):
            required.append(frozenset(value.removeprefix("in:").split(",")))
        else:
            plain = _names(value)
            required += [frozenset({name}) for name in plain[0]]
            forbidden |= plain[1]
    member_of, outside = [], set()
    for value in parts["member_of"]:
        listed = frozenset(value.removeprefix("!").removeprefix("in:").split(","))
        if value.startswith("!"):
            outside |= listed
        else:
            member_of.append(listed)
    amounts = (pair.split(":") for value in parts["resources"] for pair in value.split(","))
    return _Group(
        suffix,
        {name: int(amount) for name, amount in amounts},
        required,
        frozenset(forbidden),
        member_of,
        frozenset(outside),
        next(iter(parts["in_tree"]), None),
    )


def _names(value: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a list of traits requires and what it forbids."""
    listed = [name for name in value.split(",") if name]
    forbidden = frozenset(name.removeprefix("!") for name in listed if name.startswith("!"))
    return frozenset(name for name in listed if not name.startswith("!")), forbidden


def _anchors(provider: Provider, providers: dict[str, Provider]) -> set[str]:
    """Return the roots of the trees that can use a provider."""
    users = (each for each in providers.values() if provider.shares and each.aggregates & provider.aggregates)
    return {provider.root, *(each.root for each in users)}


def _served(group: _Group, anchor: Provider, providers: dict[str, Provider]) -> Iterator[dict[str, str]]:
    """Yield each way to serve a group in the tree of an anchor."""
    if group.vague:
        return
    usable = [each for each in providers.values() if anchor.uuid in _anchors(each, providers)]
    if group.in_tree is not None:
        tree = providers[group.in_tree].root if group.in_tree in providers else None
        usable = [each for each in usable if each.root == tree and (group.suffix or each.root == anchor.uuid)]
    # For the group without a suffix a root's aggregates are its whole tree's, and keep out what shares with it.
    of_tree: frozenset[str] = frozenset() if group.suffix else anchor.aggregates
    usable = [
        each
        for each in usable
        if all(
            wanted & (each.aggregates | of_tree if each.root == anchor.uuid else each.aggregates)
            for wanted in group.member_of
        )
        and not group.not_member_of & (each.aggregates | of_tree)
        and not group.forbidden & each.traits
    ]
    if group.suffix:
        for each in usable:
            if all(each.fits(name, amount) for name, amount in group.resources.items()) and all(
                wanted & each.traits for wanted in group.required
            ):
                yield dict.fromkeys(group.resources or {"": 0}, each.uuid)
        return
    for chosen in itertools.product(
        *([each for each in usable if each.fits(name, amount)] for name, amount in group.resources.items())
    ):
        together = frozenset().union(*(each.traits for each in chosen))
        if all(wanted & together for wanted in group.required):
            yield {name: each.uuid for name, each in zip(group.resources, chosen, strict=True)}


def _is_subtree(suffixes: list[str], choice: Choice, providers: dict[str, Provider]) -> bool:
    """Tell whether one of the providers that serve these groups is above all of them."""
    serving = {uuid for suffix in suffixes for uuid in choice[suffix].values()}
    return any(all(top in _line(uuid, providers) for uuid in serving) for top in serving)


def _line(uuid: str | None, providers: dict[str, Provider]) -> Iterator[str]:
    """Yield a provider and all above it."""
    while uuid is not None:
        yield uuid
        uuid = providers[uuid].parent


def _request(groups: list[_Group], choice: Choice, providers: dict[str, Provider]) -> dict[str, Any] | None:
    """Return a candidate as an answer has it, None when its groups do not fit together."""
    claimed: dict[str, Counter[str]] = defaultdict(Counter)
    for group in groups:
        for name, amount in group.resources.items():
            claimed[choice[group.suffix][name]][name] += amount
    for uuid, amounts in claimed.items():
        for name, amount in amounts.items():
            stock = providers[uuid].inventories[name]
            capacity = int((stock["total"] - stock["reserved"]) * stock["allocation_ratio"])
            if providers[uuid].usages.get(name, 0) + amount > capacity or amount > stock["max_unit"]:
                return None
    return {
        "allocations": {uuid: {"resources": dict(amounts)} for uuid, amounts in claimed.items()},
        "mappings": {suffix: sorted(set(given.values())) for suffix, given in choice.items()},
    }
