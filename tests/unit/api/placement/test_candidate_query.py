# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a query string asks of GET /allocation_candidates."""

from __future__ import annotations

import urllib.parse

import pytest

from accelsched import errors
from accelsched.api.placement import candidate_query
from accelsched.api.placement.faults import Fault
from accelsched.api.placement.query import Query
from accelsched.placement.candidates import CandidateQuery, RequestGroup

AGG = "dddddddd-0000-4000-8000-000000000001"
TREE = "aaaaaaaa-0000-4000-8000-000000000001"


def parse(text: str, minor: int = 39) -> CandidateQuery:
    return candidate_query.parse(Query(urllib.parse.parse_qsl(text, keep_blank_values=True)), minor)


def test_one_group_needs_no_suffix() -> None:
    assert parse("resources=VCPU:2,MEMORY_MB:512&limit=3", 16) == CandidateQuery(
        groups=(RequestGroup("", {"VCPU": 2, "MEMORY_MB": 512}),), limit=3
    )


def test_each_group_has_its_own_traits_aggregates_and_tree() -> None:
    asked = parse(
        "resources=VCPU:1&required=A,!B&resources_GPU=VGPU:1&required_GPU=in:C,D&required_GPU=E"
        f"&member_of_GPU={AGG}&member_of_GPU=!{AGG}&in_tree_GPU={TREE}&root_required=F,!G&group_policy=isolate"
        "&resources_B=PGPU:1&same_subtree=_GPU,_B"
    )
    assert asked == CandidateQuery(
        groups=(
            RequestGroup("", {"VCPU": 1}, (frozenset("A"),), frozenset("B")),
            RequestGroup(
                "_GPU",
                {"VGPU": 1},
                required=(frozenset("CD"), frozenset("E")),
                member_of=(frozenset({AGG}),),
                forbidden_aggregates=frozenset({AGG}),
                in_tree=TREE,
            ),
            RequestGroup("_B", {"PGPU": 1}),
        ),
        isolate=True,
        same_subtree=(frozenset({"_GPU", "_B"}),),
        root_required=frozenset("F"),
        root_forbidden=frozenset("G"),
    )


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("resources=VCPU:1", 10),
        ("resources=VCPU:1&limit=1", 16),
        ("resources=VCPU:1&required=A", 17),
        (f"resources=VCPU:1&member_of={AGG}", 21),
        ("resources1=VCPU:1", 25),
        ("resources1=VCPU:1&resources2=VCPU:1&group_policy=none", 25),
        (f"resources=VCPU:1&in_tree={TREE}", 31),
        ("resources_A=VCPU:1", 33),
        ("resources=VCPU:1&root_required=A", 35),
        ("resources1=VCPU:1&same_subtree=1", 36),
        ("resources1=VCPU:1&required2=A&same_subtree=1,2&group_policy=none", 36),
        ("resources=VCPU:1&required=in:A,B", 39),
    ],
)
def test_parameters_are_understood_from_their_version_on(text: str, first: int) -> None:
    parse(text, first)
    if first > candidate_query.SINCE:
        with pytest.raises((errors.InvalidError, Fault)):
            parse(text, first - 1)


@pytest.mark.parametrize(
    "text",
    [
        "resources=",
        "resources=VCPU:1&nonsense=1",
        "resources=VCPU:1&limit=0",
        "resources=VCPU:1&limit=-1",
        "resources=VCPU:1&limit=1.5",
        "resources=VCPU:1&required=A,!A",
        "resources1=VGPU:1&resources2=VGPU:1",
        "resources1=VGPU:1&group_policy=sometimes",
        "resources=VCPU:1&in_tree=x",
        f"resources_{'x' * 65}=VCPU:1",
    ],
)
def test_malformed_questions_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("required_A=T&same_subtree=_A", "placement.query.missing_value"),
        ("resources_A=VGPU:1&required_B=T&group_policy=none", "placement.query.bad_value"),
        ("resources_A=VGPU:1&same_subtree=_A,_B", "placement.query.bad_value"),
        ("resources_A=VGPU:1&same_subtree=_A,", "placement.query.bad_value"),
        ("resources=VCPU:1&root_required=A,!A", "placement.query.bad_value"),
        ("resources=VCPU:1&root_required=A&root_required=B", "placement.query.duplicate_key"),
    ],
)
def test_some_refusals_carry_a_code(text: str, code: str) -> None:
    with pytest.raises(Fault) as refused:
        parse(text)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_an_absurd_limit_is_no_limit_worth_speaking_of() -> None:
    limit = parse(f"resources=VCPU:1&limit={'9' * 5000}").limit
    assert limit is not None
    assert limit >= 2**31
