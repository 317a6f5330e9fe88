# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which bodies are taken at which version, and what they are taken to say."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched.api.placement import allocation_schemas, inventories, microversion
from accelsched.api.placement.allocations import change_of
from accelsched.placement.claims import ANY_GENERATION
from accelsched.placement.inventories import Amounts

HOST = "aaaaaaaa-0000-4000-8000-000000000001"
CONSUMER = "eeeeeeee-0000-4000-8000-000000000001"
OWNER = {"project_id": "p", "user_id": "u"}
LISTED = {"allocations": [{"resource_provider": {"uuid": HOST}, "resources": {"VCPU": 1}}]}
MAPPED = {"allocations": {HOST: {"resources": {"VCPU": 1}}}}
GENERATION = {"consumer_generation": None}
TYPED = {"consumer_type": "INSTANCE"}


@pytest.mark.parametrize(
    ("body", "first", "last"),
    [
        (LISTED, 0, 7),
        (LISTED | OWNER, 8, 11),
        (MAPPED | OWNER, 12, 27),
        (MAPPED | OWNER | GENERATION, 28, 37),
        ({"allocations": {}} | OWNER | GENERATION, 28, 37),
        (MAPPED | OWNER | GENERATION | {"mappings": {"_A": [HOST]}}, 34, 37),
        (MAPPED | OWNER | GENERATION | TYPED, 38, 39),
        ({"allocations": {}} | OWNER, 99, 0),
        (MAPPED | OWNER | GENERATION | {"consumer_type": "lower"}, 99, 0),
        (MAPPED | OWNER | GENERATION | {"consumer_type": "A\n"}, 99, 0),
        (MAPPED | {"project_id": "a\0b", "user_id": "u"}, 99, 0),
        ({"allocations": {HOST: {"resources": {"VCPU\n": 1}}}} | OWNER, 99, 0),
        ({"allocations": {HOST: {"resources": {"VCPU": 1.5}}}} | OWNER, 99, 0),
    ],
)
def test_each_form_of_an_allocation_has_its_versions(body: dict[str, Any], first: int, last: int) -> None:
    taken = [minor for minor in range(40) if microversion.pick(allocation_schemas.PUT, minor).is_valid(body)]
    assert taken == list(range(first, last + 1))


def test_a_consumer_may_be_emptied_by_post_before_it_may_by_put() -> None:
    empty = {"allocations": {}} | OWNER
    assert not microversion.pick(allocation_schemas.PUT, 13).is_valid(empty)
    assert microversion.pick(allocation_schemas.POST, 13).is_valid({CONSUMER: empty})


def test_generations_are_checked_from_1_28() -> None:
    assert change_of(CONSUMER, MAPPED | OWNER, 27).generation is ANY_GENERATION
    assert change_of(CONSUMER, MAPPED | OWNER | GENERATION, 28).generation is None
    assert change_of(CONSUMER, MAPPED | OWNER | {"consumer_generation": 4}, 28).generation == 4


def test_a_consumer_without_an_owner_gets_the_one_that_stands_for_nobody() -> None:
    change = change_of(CONSUMER, LISTED, 0)
    assert change.allocations == {HOST: {"VCPU": 1}}
    assert {change.project_id, change.user_id} == {"00000000-0000-0000-0000-000000000000"}


def test_an_inventory_says_what_it_does_not_say_by_defaults() -> None:
    assert inventories.amounts_of({"total": 8}) == Amounts(8, 0, 1, 2**31 - 1, 1, 1.0)
    amounts = inventories.amounts_of({"total": 8.0, "reserved": 2, "allocation_ratio": 16, "step_size": 2})
    assert amounts == Amounts(8, 2, 1, 2**31 - 1, 2, 16.0)
    assert amounts.capacity == 96
