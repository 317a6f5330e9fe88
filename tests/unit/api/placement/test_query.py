# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The small languages of query parameters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched import errors
from accelsched.api.placement import query

AGG1, AGG2 = "dddddddd-0000-4000-8000-000000000001", "dddddddd-0000-4000-8000-000000000002"

_NAMES = st.text(alphabet="ABC_123", min_size=1, max_size=12)


@given(st.dictionaries(_NAMES, st.integers(min_value=1, max_value=2**31), min_size=1))
def test_resources_are_read_as_they_are_written(wanted: dict[str, int]) -> None:
    text = ",".join(f"{name}:{amount}" for name, amount in wanted.items())
    assert query.parse_resources(text) == wanted


@pytest.mark.parametrize("text", ["", ",", "VCPU", "VCPU:", "VCPU:0", "VCPU:-1", "VCPU:x", "VCPU:1:2", "VCPU:1,"])
def test_malformed_resources_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidError, match="resources"):
        query.parse_resources(text)


@pytest.mark.parametrize("digits", [12, 30, 5000])
def test_an_amount_that_no_inventory_has_stays_one_that_no_inventory_has(digits: int) -> None:
    try:
        amount = query.parse_resources(f"VCPU:{'9' * digits}")["VCPU"]
    except errors.InvalidError:
        return  # Python reads no number of thousands of digits.
    assert amount == 2**31


def test_forbidden_traits_come_with_1_22_and_alternatives_with_1_39() -> None:
    with pytest.raises(errors.InvalidError, match="not understood"):
        query.parse_required(["!A"], 21)
    assert query.parse_required(["A,!B"], 22) == ([frozenset({"A"})], frozenset({"B"}))
    with pytest.raises(errors.InvalidError, match="in:"):
        query.parse_required(["in:A,B"], 38)
    assert query.parse_required(["in:A,B"], 39) == ([frozenset({"A", "B"})], frozenset())


def test_of_several_required_the_last_counts_until_they_add_up() -> None:
    assert query.parse_required(["A", "B"], 38) == ([frozenset({"B"})], frozenset())
    assert query.parse_required(["A", "B,!C"], 39) == ([frozenset({"A"}), frozenset({"B"})], frozenset({"C"}))


@pytest.mark.parametrize("text", ["", "A,", "!", "A,!", "in:", "in:A,", "in:A,!B"])
def test_malformed_traits_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidError, match="traits"):
        query.parse_required([text], 39)


def test_aggregates_can_be_several_from_1_24_and_forbidden_from_1_32() -> None:
    assert query.parse_member_of([AGG1], 3) == ([frozenset({AGG1})], frozenset())
    assert query.parse_member_of([f"in:{AGG1},{AGG2}"], 3) == ([frozenset({AGG1, AGG2})], frozenset())
    with pytest.raises(errors.InvalidError, match="Multiple"):
        query.parse_member_of([AGG1, AGG2], 23)
    assert query.parse_member_of([AGG1, AGG2], 24) == ([frozenset({AGG1}), frozenset({AGG2})], frozenset())
    with pytest.raises(errors.InvalidError, match="Forbidden"):
        query.parse_member_of([f"!{AGG1}"], 31)
    assert query.parse_member_of([f"!in:{AGG1},{AGG2}"], 32) == ([], frozenset({AGG1, AGG2}))


@pytest.mark.parametrize("text", ["", "x", f"{AGG1},{AGG2}", "in:", f"in:{AGG1},", "!", "!!" + AGG1])
def test_malformed_aggregates_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidError, match="member_of"):
        query.parse_member_of([text], 39)


@given(st.text(), st.integers(min_value=0, max_value=39))
def test_whatever_is_written_is_either_understood_or_refused(text: str, minor: int) -> None:
    for parse in (
        query.parse_resources,
        lambda value: query.parse_required([value], minor),
        lambda value: query.parse_member_of([value], minor),
        lambda value: query.parse_uuid("in_tree", value),
    ):
        try:
            parse(text)
        except errors.InvalidError as exc:
            assert len(str(exc)) < 1000
