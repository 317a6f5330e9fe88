# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What nobody should send is refused in Placement's form, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from placement_exchange import Client, Step

HOST = "aaaaaaaa-0000-4000-8000-0000000000b1"
CONSUMER = "eeeeeeee-0000-4000-8000-0000000000b1"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True, scope="module")
def host(ours: Client) -> None:
    ours.ask(Step("POST", "/resource_providers", body={"name": "bad-input host", "uuid": HOST}))
    stock = {"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 4}}}
    ours.ask(Step("PUT", f"/resource_providers/{HOST}/inventories", body=stock))


def _allocation(**changes: Any) -> dict[str, Any]:
    body = {
        "allocations": {HOST: {"resources": {"VCPU": 1}}},
        "project_id": "p",
        "user_id": "u",
        "consumer_generation": None,
        "consumer_type": "INSTANCE",
    }
    return body | changes


BAD = [
    Step("POST", "/resource_providers", body={"name": "a\0b"}),
    Step("POST", "/resource_providers", body={"name": ""}),
    Step("POST", "/resource_providers", raw=b'{"name": "\\ud800"}', headers=JSON),
    Step("POST", "/resource_providers", raw=b"[" * 100_000, headers=JSON),
    Step("GET", "/resource_providers?name=%ff%fe"),
    Step("GET", "/resource_providers?" + "&".join(["name=x"] * 12_000)),
    Step("GET", f"/resource_providers?resources=VCPU:{'9' * 5000}"),
    Step("PUT", f"/allocations/{CONSUMER}", body=_allocation(project_id="a\0b")),
    Step("PUT", f"/allocations/{CONSUMER}", body=_allocation(allocations={HOST: {"resources": {"VCPU": -1}}})),
    Step("PUT", f"/allocations/{CONSUMER}", body=_allocation(allocations={"x" * 36: {"resources": {"VCPU": 1}}})),
    Step("PUT", f"/allocations/{CONSUMER}", body=_allocation(consumer_type="x" * 256)),
    Step(
        "PUT",
        f"/resource_providers/{HOST}/inventories",
        raw=b'{"resource_provider_generation": 1, "inventories": {"VCPU": {"total": NaN}}}',
        headers=JSON,
    ),
    Step(
        "PUT",
        f"/resource_providers/{HOST}/inventories",
        body={
            "resource_provider_generation": 1,
            "inventories": {"VCPU": {"total": 2**31 - 1, "allocation_ratio": 3.4e38}},
        },
    ),
    Step(
        "PUT",
        f"/resource_providers/{HOST}/traits",
        body={"resource_provider_generation": 1, "traits": [f"CUSTOM_{n}" for n in range(10_000)]},
    ),
    Step(
        "PUT",
        f"/resource_providers/{HOST}/aggregates",
        body={"resource_provider_generation": 1, "aggregates": ["{aaaaaaaa-0000-4000-8000-000000000001}"]},
    ),
]


@pytest.mark.parametrize("step", BAD, ids=lambda step: f"{step.method} {step.path[:40]} {str(step.body)[:60]}")
def test_bad_input_is_a_400_that_changes_nothing(ours: Client, step: Step) -> None:
    state = [
        Step("GET", "/resource_providers"),
        Step("GET", f"/resource_providers/{HOST}/inventories"),
        Step("GET", f"/allocations/{CONSUMER}"),
    ]
    before = [ours.ask(look).body for look in state]
    answer = ours.ask(step)
    (error,) = answer.body["errors"]
    assert answer.status == error["status"] == 400
    assert error["title"] == "Bad Request"
    assert error["code"] == "placement.undefined_code"
    assert error["has_request_id"]
    assert [ours.ask(look).body for look in state] == before


@pytest.mark.parametrize("path", ["/resource_providers/" + "x" * 5000, "/traits/%ff", "/traits/%2F", "/traits/a/b"])
def test_a_path_to_nothing_is_a_404(ours: Client, path: str) -> None:
    assert ours.ask(Step("GET", path)).status == 404


@pytest.mark.parametrize("path", ["/resource_providers/%00", "/traits/a%00b", "/resource_providers?name=%00"])
def test_a_nul_is_refused_before_any_database_sees_it(ours: Client, path: str) -> None:
    answer = ours.ask(Step("GET", path))
    assert (answer.status, answer.body["errors"][0]["status"]) == (400, 400)


def test_whoever_says_not_who_he_is_learns_nothing_but_the_versions(ours: Client) -> None:
    assert ours.ask(Step("GET", "", token=None)).status == 200
    for step in (Step("GET", f"/resource_providers/{HOST}", token=None), Step("GET", "/nothing", token=None)):
        answer = ours.ask(step)
        assert (answer.status, answer.body["errors"][0]["status"]) == (401, 401)


def test_an_amount_beyond_any_inventory_is_a_conflict(ours: Client) -> None:
    for amount in (5, 2**31, 2**63, 10**30):
        body = _allocation(allocations={HOST: {"resources": {"VCPU": amount}}})
        assert ours.ask(Step("PUT", f"/allocations/{CONSUMER}", body=body)).status == 409
