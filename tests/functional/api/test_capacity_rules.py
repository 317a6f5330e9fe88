# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/resource_providers/{uuid}/capacity_rule``, and what Placement's clients see of it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

A, B = "CUSTOM_RULE_A", "CUSTOM_RULE_B"
BUDGET = {"type": "budget", "budget": 24, "costs": {A: 4, B: 8}}
SLICES = {
    "type": "slices",
    "memory_slices": 8,
    "compute_slices": 7,
    "profiles": {
        A: {"memory_slices": 1, "compute_slices": 1, "starts": [0, 1, 2, 3, 4, 5, 6]},
        B: {"memory_slices": 4, "compute_slices": 3, "starts": [0, 4]},
    },
}


class Gpu:
    """A provider of two classes, and its paths."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.uuid = str(uuid.uuid4())
        self.rule = f"/v1/resource_providers/{self.uuid}/capacity_rule"
        self.headers = {"OpenStack-API-Version": "placement 1.39"}
        for name in (A, B):
            assert self.placement("PUT", f"/resource_classes/{name}").status_code in (201, 204)
        assert self.placement("POST", "/resource_providers", {"name": self.uuid, "uuid": self.uuid}).ok
        body = {"resource_provider_generation": 0, "inventories": {A: {"total": 7}, B: {"total": 7}}}
        assert self.placement("PUT", f"/resource_providers/{self.uuid}/inventories", body).ok

    def placement(self, method: str, path: str, body: Any = None) -> Any:
        return self.api.request(method, "/placement" + path, json=body, headers=self.headers)

    def put(self, rule: Any, generation: int) -> Any:
        body = {"resource_provider_generation": generation, "capacity_rule": rule}
        return self.api.put(self.rule, json=body)

    def claim(self, consumer: str, amounts: dict[str, int]) -> Any:
        body = {
            "allocations": {self.uuid: {"resources": amounts}} if amounts else {},
            "project_id": "p",
            "user_id": "u",
            "consumer_generation": None,
            "consumer_type": "TEST",
        }
        return self.placement("PUT", f"/allocations/{consumer}", body)

    def candidates(self, query: str) -> Any:
        answer = self.placement("GET", f"/allocation_candidates?{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def gpu(api: Any) -> Gpu:
    return Gpu(api)


def test_ordinary_placement_clients_see_what_is_left_under_a_rule(gpu: Gpu) -> None:
    shown = gpu.put(BUDGET, 1)
    assert shown.status_code == 200
    assert shown.json() == {
        "resource_provider_generation": 2,
        "capacity_rule": BUDGET,
        "ceilings": {A: 6, B: 3},
        "positions": [],
    }
    assert gpu.claim(str(uuid.uuid4()), {B: 2}).status_code == 204
    assert gpu.api.get(gpu.rule).json()["ceilings"] == {A: 2, B: 3}
    summary = gpu.candidates(f"resources={A}:2&in_tree={gpu.uuid}")["provider_summaries"][gpu.uuid]["resources"]
    assert summary == {A: {"capacity": 2, "used": 0}, B: {"capacity": 3, "used": 2}}
    assert gpu.candidates(f"resources={A}:3&in_tree={gpu.uuid}")["allocation_requests"] == []
    # Each fits, and not both.
    both = f"resources_1={A}:1&resources_2={B}:1&group_policy=none&in_tree_1={gpu.uuid}&in_tree_2={gpu.uuid}"
    assert gpu.candidates(both)["allocation_requests"] == []
    listed = gpu.placement("GET", f"/resource_providers?resources={A}:3&in_tree={gpu.uuid}").json()
    assert listed == {"resource_providers": []}
    refused = gpu.claim(str(uuid.uuid4()), {A: 1, B: 1})
    assert refused.status_code == 409
    assert "share a budget of 24" in refused.json()["errors"][0]["detail"]
    # What the provider has stays what it was told to have.
    kept = gpu.placement("GET", f"/resource_providers/{gpu.uuid}/inventories").json()["inventories"]
    assert {name: amounts["total"] for name, amounts in kept.items()} == {A: 7, B: 7}


def test_positions_are_shown_with_their_consumers(gpu: Gpu) -> None:
    assert gpu.put(SLICES, 1).status_code == 200
    consumer = str(uuid.uuid4())
    assert gpu.claim(consumer, {A: 1, B: 1}).status_code == 204
    assert gpu.api.get(gpu.rule).json()["positions"] == [
        {"consumer_uuid": consumer, "resource_class": A, "start": 0},
        {"consumer_uuid": consumer, "resource_class": B, "start": 4},
    ]
    (believed,) = gpu.api.get(f"/v1/picture?uuid={gpu.uuid}").json()["picture"]["resource_providers"]
    assert believed["capacity_rule"] == SLICES
    assert believed["positions"] == [{"resource_class": A, "start": 0}, {"resource_class": B, "start": 4}]


def test_a_rule_is_set_on_what_was_seen_and_on_what_can_keep_it(gpu: Gpu) -> None:
    assert gpu.put(BUDGET, 0).status_code == 409
    assert gpu.claim(str(uuid.uuid4()), {A: 2, B: 1}).status_code == 204
    broken = gpu.put({"type": "one_type", "resource_classes": [A, B]}, 2)
    assert broken.status_code == 409
    assert f"2 {A}, 1 {B}" in broken.json()["errors"][0]["detail"]
    assert gpu.api.get(gpu.rule).json() == {
        "resource_provider_generation": 2,
        "capacity_rule": None,
        "ceilings": {},
        "positions": [],
    }
    assert gpu.put(BUDGET, 2).status_code == 200
    assert gpu.api.delete(gpu.rule).status_code == 204
    assert gpu.api.delete(gpu.rule).status_code == 404
    assert gpu.claim(str(uuid.uuid4()), {B: 4}).status_code == 204


@pytest.mark.parametrize(
    "rule",
    [
        None,
        [],
        {},
        {"type": "budget", "budget": 2**40, "costs": {A: 1}},
        {"type": "budget", "budget": 1, "costs": {"x": 1}},
        {"type": "budget", "budget": 1, "costs": {A: 1, f"{A}\n": 1}},
        {"type": "one_type", "resource_classes": [f"CUSTOM_{number}" for number in range(257)]},
        {"type": "one_type", "resource_classes": ["CUSTOM_NOBODY_MADE"]},
        {**SLICES, "compute_slices": 2},
        {**SLICES, "memory_slices": 7},
        {**SLICES, "profiles": {}},
    ],
)
def test_a_rule_that_makes_no_sense_is_a_400_and_changes_nothing(gpu: Gpu, rule: Any) -> None:
    refused = gpu.put(rule, 1)
    assert refused.status_code == refused.json()["errors"][0]["status"] == 400, refused.text
    assert len(refused.text) < 2000
    told = gpu.api.get(gpu.rule).json()
    assert (told["capacity_rule"], told["resource_provider_generation"]) == (None, 1)


@pytest.mark.parametrize("generation", [-1, "1", 1.5, None, 2**63])
def test_a_generation_that_is_none_is_a_400(gpu: Gpu, generation: Any) -> None:
    assert gpu.put(BUDGET, generation).status_code == 400


def test_rules_are_for_operators_and_for_providers_that_there_are(gpu: Gpu) -> None:
    alice = gpu.api.user("alice")
    body = {"resource_provider_generation": 1, "capacity_rule": BUDGET}
    assert alice.get(gpu.rule).status_code == 403
    assert alice.put(gpu.rule, json=body).status_code == 403
    assert alice.delete(gpu.rule).status_code == 403
    for nobody in (str(uuid.uuid4()), "x", "x" * 5000):
        path = f"/v1/resource_providers/{nobody}/capacity_rule"
        assert gpu.api.get(path).status_code == 404
        assert gpu.api.put(path, json=body).status_code == 404
        assert gpu.api.delete(path).status_code == 404
