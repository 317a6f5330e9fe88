# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The query string of ``GET /allocation_candidates``, as each microversion has it."""

from __future__ import annotations

import re
import sys
from typing import Any

from accelsched import errors
from accelsched.api.placement import faults, microversion, query
from accelsched.api.placement.faults import Fault
from accelsched.api.placement.handler import query_validator
from accelsched.api.placement.query import Query
from accelsched.placement.candidates import CandidateQuery, RequestGroup

# From which minor version on:
SINCE = 10
_LIMIT = 16
_REQUIRED = 17
_MEMBER_OF = 21
_NUMBERED = 25
_IN_TREE = 31
_NAMED = 33
_ROOT_REQUIRED = 35
_SAME_SUBTREE = 36

_NUMBER = "[1-9][0-9]*"
_NAME = "[a-zA-Z0-9_-]{1,64}"
_LIMIT_PATTERN = re.compile(r"^[1-9][0-9]*\Z")
_TEXT = {"type": "string"}


def _schema(minor: int) -> dict[str, Any]:
    since = {"resources": SINCE, "required": _REQUIRED, "member_of": _MEMBER_OF, "in_tree": _IN_TREE}
    kinds = [kind for kind, first in since.items() if first <= minor]
    properties: dict[str, Any] = {}
    if minor >= _LIMIT:
        properties["limit"] = {"type": "string", "pattern": _LIMIT_PATTERN.pattern}
    if minor >= _NUMBERED:
        properties["group_policy"] = {"type": "string", "enum": ["none", "isolate"]}
    if minor >= _ROOT_REQUIRED:
        properties["root_required"] = _TEXT
    if minor >= _SAME_SUBTREE:
        properties["same_subtree"] = _TEXT
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if minor < _NUMBERED:
        properties |= dict.fromkeys(kinds, _TEXT)
        schema["required"] = ["resources"]
    else:
        suffix = _NAME if minor >= _NAMED else _NUMBER
        schema["patternProperties"] = {rf"^{kind}({suffix})?\Z": _TEXT for kind in kinds}
    return schema


_GET = {
    minor: query_validator(_schema(minor))
    for minor in (SINCE, _LIMIT, _REQUIRED, _MEMBER_OF, _NUMBERED, _IN_TREE, _NAMED, _ROOT_REQUIRED, _SAME_SUBTREE)
}
_KEYS = {
    SINCE: re.compile(rf"(resources|required|member_of|in_tree)({_NUMBER})?"),
    _NAMED: re.compile(rf"(resources|required|member_of|in_tree)({_NAME})?"),
}


def parse(asked: Query, minor: int) -> CandidateQuery:
    """Return what is asked for. Whether the classes and traits in it exist is not looked at.

    :raises accelsched.errors.InvalidError: saying what is wrong
    :raises Fault: the same, where Placement gives it a code
    """
    asked.check(microversion.pick(_GET, minor))
    root_required, root_forbidden = _root_traits(asked)
    subtrees = _subtrees(asked)
    groups = _groups(asked, minor)
    if minor >= _SAME_SUBTREE:
        _check_subtrees(groups, subtrees)
    else:
        _check_orphans(groups)
    if minor >= query.FORBIDDEN_TRAITS:
        _check_contradictions(groups)
    # Of several policies, and limits, Placement goes by the first; an empty one is none.
    policy = next(iter(asked.all("group_policy")), None)
    if not policy and len([suffix for suffix in groups if suffix]) > 1:
        raise errors.InvalidError(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    limit = next(iter(asked.all("limit")), None)
    if limit is not None and not _LIMIT_PATTERN.match(limit):
        raise errors.InvalidError(f"Invalid query string parameters: the limit {limit[:100]} is no number from 1 on")
    return CandidateQuery(
        groups=tuple(groups.values()),
        isolate=policy == "isolate",
        same_subtree=tuple(subtrees),
        root_required=root_required,
        root_forbidden=root_forbidden,
        # Nobody counts further than this, and a longer number would not even be one to Python.
        limit=None if limit is None else sys.maxsize if len(limit) > 18 else int(limit),
    )


def _root_traits(asked: Query) -> tuple[frozenset[str], frozenset[str]]:
    values = asked.all("root_required")
    if not values:
        return frozenset(), frozenset()
    if len(values) > 1:
        raise Fault(400, "Query parameter 'root_required' may be specified only once.", code=faults.QUERY_DUPLICATE_KEY)
    required, forbidden = query.parse_traits(values[0], forbidden=True, alternatives=False)
    wanted = frozenset().union(*required)
    if both := wanted & forbidden:
        raise Fault(
            400,
            f"Conflicting required and forbidden traits found in root_required: {', '.join(sorted(both))}",
            code=faults.QUERY_BAD_VALUE,
        )
    return wanted, forbidden


def _subtrees(asked: Query) -> list[frozenset[str]]:
    subtrees = [frozenset(suffix.strip() for suffix in value.split(",")) for value in asked.all("same_subtree")]
    if any("" in suffixes for suffixes in subtrees):
        raise Fault(
            400,
            "Empty string (unsuffixed group) can not be specified in `same_subtree`",
            code=faults.QUERY_BAD_VALUE,
        )
    return subtrees


def _groups(asked: Query, minor: int) -> dict[str, RequestGroup]:
    pattern = microversion.pick(_KEYS, minor)
    given: dict[str, dict[str, list[str]]] = {}
    for key, value in asked.pairs:
        match = pattern.fullmatch(key)
        if match is not None:
            given.setdefault(match[2] or "", {}).setdefault(match[1], []).append(value)
    return {suffix: _group(suffix, parts, minor) for suffix, parts in given.items()}


def _group(suffix: str, parts: dict[str, list[str]], minor: int) -> RequestGroup:
    resources: dict[str, int] = {}
    for value in parts.get("resources", []):
        resources = query.parse_resources(value)
    required, forbidden = query.parse_required(parts.get("required", []), minor)
    member_of, forbidden_aggregates = query.parse_member_of(parts.get("member_of", []), minor)
    in_tree = None
    for value in parts.get("in_tree", []):
        in_tree = query.parse_uuid("in_tree", value)
    return RequestGroup(
        suffix=suffix,
        resources=resources,
        required=tuple(required),
        forbidden=forbidden,
        member_of=tuple(member_of),
        forbidden_aggregates=forbidden_aggregates,
        in_tree=in_tree,
    )


def _check_subtrees(groups: dict[str, RequestGroup], subtrees: list[frozenset[str]]) -> None:
    resourceless = {suffix for suffix, group in groups.items() if not group.resources}
    if len(resourceless) == len(groups):
        raise Fault(
            400,
            "There must be at least one resources or resources[$S] parameter.",
            code=faults.QUERY_MISSING_VALUE,
        )
    named = frozenset().union(*subtrees)
    if bad := resourceless - named:
        raise Fault(
            400,
            "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - "
            f"{', '.join(sorted(bad))}.",
            code=faults.QUERY_BAD_VALUE,
        )
    if unknown := named - groups.keys():
        raise Fault(
            400,
            "Real suffixes should be specified in `same_subtree`: not found: " + ", ".join(sorted(unknown)),
            code=faults.QUERY_BAD_VALUE,
        )


def _check_orphans(groups: dict[str, RequestGroup]) -> None:
    if not groups:
        raise errors.InvalidError("At least one request group (`resources` or `resources{$S}`) is required.")
    for suffix, group in groups.items():
        if not group.resources:
            raise errors.InvalidError(
                "All request groups must specify resources: traits, aggregates and trees go with resources. "
                f"There is no resources{suffix} parameter."
            )


def _check_contradictions(groups: dict[str, RequestGroup]) -> None:
    bad = [
        f"required{suffix}: ({', '.join(sorted(any_of))})"
        for suffix, group in groups.items()
        for any_of in group.required
        if any_of <= group.forbidden
    ]
    if bad:
        raise errors.InvalidError(
            "Conflicting required and forbidden traits found in the following traits keys: " + ", ".join(sorted(bad))
        )
