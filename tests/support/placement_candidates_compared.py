# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Answers to ``GET /allocation_candidates``, compared as what they mean: sets of candidates.

Two candidates that differ only in which of two like groups got which provider are the same to us, and ours gives one of
them. Where a ``limit`` cuts, each of ours must be one of Placement's without it, and there must be as many as
there can be.

Placement is wrong about three kinds of questions. What it should have answered is found otherwise; ours must be that:

* Where several groups ask for one class and ``group_policy`` is not ``none``, it adds amounts to objects that its
  candidates share: some claim more than was asked for, and others are missing because that does not fit. With ``none``
  it copies them. So it is asked with ``none``, and the candidates that isolate no groups are left out here.
* It holds two ways to serve the group without a suffix for one when a provider that shares serves it for two trees,
  and then has it for one of the trees only. So where such a group comes with others and providers share, all candidates
  are found by trying everything (:mod:`placement_model`): ours must have just these, and Placement all but some that
  serve the group from what is shared.
* It does not look at ``in_tree`` of a group without resources. The candidates that serve such a group from another tree
  are left out here.
"""

from __future__ import annotations

import json
import urllib.parse
from collections import Counter
from collections.abc import Callable
from typing import Any

import placement_model as model
from placement_exchange import Answer, Step

_KINDS = ("resources", "required", "member_of", "in_tree")
_BY_PROVIDER, _NESTED_AWARE, _WITH_MAPPINGS = 12, 29, 34
Query = list[tuple[str, str]]
Requests = list[dict[str, Any]]
Ask = Callable[[Step], Answer]


def concerns(step: Step, answer: Answer) -> bool:
    """Tell whether this is an answer with candidates."""
    return answer.status == 200 and isinstance(answer.body, dict) and "allocation_requests" in answer.body


def query_of(step: Step) -> Query:
    """Return a request's parameters."""
    return urllib.parse.parse_qsl(step.path.partition("?")[2], keep_blank_values=True)


def has_limit(step: Step) -> bool:
    """Tell whether the request has a limit."""
    return any(name == "limit" for name, _ in query_of(step))


def difference(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> str | None:
    """Return in what two answers differ, None when in nothing.

    :param ask: asks Placement something else
    """
    query = query_of(step)
    minor = version_of(theirs)
    policy = dict(query).get("group_policy")
    mistaken = asked_by(query)[1] and policy != "none"
    every = theirs.body
    if mistaken or has_limit(step):
        every = _otherwise(_path(step, None if mistaken else policy), minor, ask)
    right = every["allocation_requests"]
    if mistaken and policy == "isolate":
        right = _isolated(_path(step), minor, ask)
    right = _in_their_trees(right, query, ask)
    given = ours.body["allocation_requests"]
    if _may_lose(query, ask):
        return _difference_of_what_it_lost(query, minor, right, given, ask)
    if why := difference_of_requests(query, right, given):
        return why
    whole = len(right) == len(every["allocation_requests"]) and len(_as_set(given, query)) == len(_as_set(right, query))
    return _summaries_difference(every["provider_summaries"], ours.body, whole=whole)


def _may_lose(query: Query, ask: Ask) -> bool:
    """Tell whether a question has groups with and without a suffix, and providers share."""
    names = {name for name, _ in query if name.startswith("resources")}
    if len(names) < 2 or "resources" not in names:
        return False
    return bool(ask(Step("GET", f"/resource_providers?required={model.SHARES}")).body["resource_providers"])


def _difference_of_what_it_lost(query: Query, minor: int, right: Requests, ours: Requests, ask: Ask) -> str | None:
    """Compare ours with what trying everything gives, and Placement's with what it may have lost of that."""
    providers = model.fleet(ask)
    roots = {uuid: provider.root for uuid, provider in providers.items()}
    sharing = {uuid for uuid, provider in providers.items() if provider.shares}
    every = model.candidates(providers, query, minor)
    kept = [request for request in every if not sharing.issuperset(request["mappings"][""])]
    found = _as_set(right, query)
    if not _as_set(as_of(minor, kept, roots), query) <= found <= _as_set(as_of(minor, every, roots), query):
        return "candidates: Placement has others than there can be"
    return difference_of_requests(query, as_of(minor, every, roots), ours)


def version_of(answer: Answer) -> int:
    """Return the minor version that an answer is in."""
    return int(str(answer.headers["openstack-api-version"]).rpartition(".")[2])


def difference_of_requests(query: Query, right: Requests, ours: Requests) -> str | None:
    """Return in what ours are not the right ``allocation_requests``, None when they are.

    :param right: all that there are, whatever the limit
    """
    asked, _ = asked_by(query)
    if wrong := [request for request in ours if _claimed(request) != asked]:
        return f"candidates that claim something else than {dict(asked)}: {wrong}"
    possible, given = _as_set(right, query), _as_set(ours, query)
    limit = next((int(value) for name, value in query if name == "limit"), None)
    if given - possible:
        return f"candidates: {len(given - possible)} that are none"
    if len(given) != min(limit or len(possible), len(possible)) or (limit and len(ours) > limit):
        return f"candidates under a limit of {limit}: {len(given)} of {len(possible)}"
    return None


def as_of(minor: int, requests: Requests, roots: dict[str, str]) -> Requests:
    """Return ``allocation_requests`` of the newest version as those of an older one.

    :param roots: the root of each provider
    """
    if minor < _NESTED_AWARE:
        trees = [[roots[uuid] for uuid in request["allocations"]] for request in requests]
        requests = [each for each, used in zip(requests, trees, strict=True) if len(used) == len(set(used))]
    if minor < _WITH_MAPPINGS:
        requests = [{"allocations": request["allocations"]} for request in requests]
    if minor < _BY_PROVIDER:
        requests = [
            {"allocations": [{"resource_provider": {"uuid": uuid}, **share} for uuid, share in sorted(held.items())]}
            for held in (request["allocations"] for request in requests)
        ]
    return requests


def _path(step: Step, policy: str | None = None) -> str:
    """Return the path of the same question without its limit.

    :param policy: with this ``group_policy``; ``none`` by default, where groups have suffixes
    """
    path, _, query = step.path.partition("?")
    kept = [part for part in query.split("&") if not part.startswith(("limit=", "group_policy="))]
    if policy or any(name.startswith("resources") and name != "resources" for name, _ in query_of(step)):
        kept.append(f"group_policy={policy or 'none'}")
    return f"{path}?{'&'.join(kept)}"


def _otherwise(path: str, minor: int, ask: Ask) -> Any:
    """Return the body that answers another question."""
    answer = ask(Step("GET", path, minor))
    assert answer.status == 200, f"{path}: {answer}"
    return answer.body


def _isolated(path: str, minor: int, ask: Ask) -> Requests:
    """Return what Placement should have answered if this, asked with ``group_policy=none``, were to isolate."""
    every = _otherwise(path, max(minor, _WITH_MAPPINGS), ask)
    roots = {uuid: summary["root_provider_uuid"] for uuid, summary in every["provider_summaries"].items()}
    right = []
    for request in every["allocation_requests"]:
        serving = [uuid for suffix, providers in request["mappings"].items() if suffix for uuid in providers]
        if len(serving) == len(set(serving)):
            right.append(request)
    return as_of(minor, right, roots)


def _in_their_trees(requests: Requests, query: Query, ask: Ask) -> Requests:
    """Leave out candidates that serve a group without resources from another tree than it asks for."""
    asked = dict(query)
    for name, uuid in asked.items():
        suffix = name.removeprefix("in_tree")
        if suffix != name and f"resources{suffix}" not in asked:
            listed = ask(Step("GET", f"/resource_providers?in_tree={uuid}")).body["resource_providers"]
            tree = {provider["uuid"] for provider in listed}
            requests = [request for request in requests if tree.issuperset(request["mappings"][suffix])]
    return requests


def _summaries_difference(every: dict[str, Any], ours: dict[str, Any], *, whole: bool) -> str | None:
    """Compare with the summaries that Placement gives with all candidates.

    :param whole: ours gives all of these candidates
    """
    summaries = ours["provider_summaries"]
    if any(every.get(uuid) != summary for uuid, summary in summaries.items()):
        return "provider_summaries: other contents"
    if whole:
        return None if summaries.keys() == every.keys() else "provider_summaries: of other providers"
    used = {uuid for request in ours["allocation_requests"] for uuid in _providers(request)}
    roots = {every[uuid].get("root_provider_uuid", uuid) for uuid in used}
    wanted = {uuid for uuid, summary in every.items() if summary.get("root_provider_uuid", uuid) in roots}
    return None if summaries.keys() == wanted else "provider_summaries: others than of the trees used"


def asked_by(query: Query) -> tuple[Counter[str], bool]:
    """Return how much of each class is asked for, and whether several groups ask for one."""
    last = {name: value for name, value in query if name.startswith("resources")}
    asked: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for value in last.values():
        group = {name: int(amount) for name, _, amount in (pair.partition(":") for pair in value.split(","))}
        asked.update(group)
        times.update(group.keys())
    return asked, any(count > 1 for count in times.values())


def _claimed(request: dict[str, Any]) -> Counter[str]:
    held = request["allocations"]
    claimed: Counter[str] = Counter()
    for share in held.values() if isinstance(held, dict) else held:
        claimed.update(share["resources"])
    return claimed


def _providers(request: dict[str, Any]) -> list[str]:
    held = request["allocations"]
    return list(held) if isinstance(held, dict) else [item["resource_provider"]["uuid"] for item in held]


def _as_set(requests: Requests, query: Query) -> set[str]:
    asked: dict[str, list[tuple[str, str]]] = {}
    for name, value in query:
        kind = next((kind for kind in _KINDS if name.startswith(kind)), None)
        if kind is not None:
            asked.setdefault(name.removeprefix(kind), []).append((kind, value))
    subtrees = [[suffix.strip() for suffix in value.split(",")] for name, value in query if name == "same_subtree"]

    def label(suffix: str) -> str:
        within = [index for index, suffixes in enumerate(subtrees) if suffix in suffixes]
        return json.dumps([suffix != "", sorted(asked.get(suffix, [])), within])

    found = set()
    for request in requests:
        mappings: dict[str, list[list[str]]] = {}
        for suffix, providers in request.get("mappings", {}).items():
            mappings.setdefault(label(suffix), []).append(sorted(providers))
        serving = {key: sorted(value) for key, value in mappings.items()}
        found.add(json.dumps([request["allocations"], serving], sort_keys=True))
    return found
