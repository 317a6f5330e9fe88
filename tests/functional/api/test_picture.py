# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/picture``: what a process believes of the fleet."""

from __future__ import annotations

import uuid
from typing import Any

PLACEMENT = {"OpenStack-API-Version": "placement 1.39"}


def placement(api: Any, method: str, path: str, body: Any = None) -> Any:
    answer = api.request(method, f"/placement{path}", json=body, headers=PLACEMENT)
    assert answer.ok, answer.text
    return answer


def picture(api: Any, **query: Any) -> Any:
    answer = api.get("/v1/picture", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["picture"]


def new_provider(api: Any, parent: str | None = None) -> str:
    name = str(uuid.uuid4())
    placement(api, "POST", "/resource_providers", {"name": name, "uuid": name, "parent_provider_uuid": parent})
    return name


def test_a_provider_is_shown_with_all_that_hangs_on_it(api: Any) -> None:
    root = new_provider(api)
    child = new_provider(api, parent=root)
    inventory = {"total": 8, "reserved": 1, "max_unit": 4, "allocation_ratio": 2.0}
    placement(
        api,
        "PUT",
        f"/resource_providers/{child}/inventories",
        {"resource_provider_generation": 0, "inventories": {"VGPU": inventory}},
    )
    placement(
        api,
        "PUT",
        f"/resource_providers/{child}/traits",
        {"resource_provider_generation": 1, "traits": ["HW_GPU_API_VULKAN"]},
    )
    placement(
        api,
        "PUT",
        f"/resource_providers/{child}/aggregates",
        {"resource_provider_generation": 2, "aggregates": [root]},
    )
    before = picture(api, uuid=child)
    consumer = {
        "allocations": {child: {"resources": {"VGPU": 3}}},
        "project_id": "p",
        "user_id": "u",
        "consumer_generation": None,
        "consumer_type": "TEST",
    }
    placement(api, "PUT", f"/allocations/{uuid.uuid4()}", consumer)
    after = picture(api, uuid=child)
    assert after["position"] == before["position"] + 1
    assert after["pid"] > 1
    assert after["host"]
    assert after["next_marker"] is None
    assert after["resource_providers"] == [
        {
            "uuid": child,
            "name": child,
            "generation": 4,
            "root_provider_uuid": root,
            "parent_provider_uuid": root,
            "traits": ["HW_GPU_API_VULKAN"],
            "aggregates": [root],
            "inventories": {
                "VGPU": {
                    "total": 8,
                    "reserved": 1,
                    "min_unit": 1,
                    "max_unit": 4,
                    "step_size": 1,
                    "allocation_ratio": 2.0,
                    "used": 3,
                    "ceiling": None,
                }
            },
            "capacity_rule": None,
            "positions": [],
        }
    ]


def test_pages_hold_everything_once(api: Any) -> None:
    some = [new_provider(api) for _ in range(5)]
    whole = picture(api)
    seen: list[str] = []
    marker: int | None = 0
    while marker is not None:
        page = picture(api, limit=2, marker=marker)
        assert len(page["resource_providers"]) <= 2
        seen += [provider["uuid"] for provider in page["resource_providers"]]
        marker = page["next_marker"]
    assert len(seen) == len(set(seen)) == whole["providers"]
    assert seen == [provider["uuid"] for provider in whole["resource_providers"]]
    assert set(some) <= set(seen)
    named = picture(api, uuid=[some[3], str(uuid.uuid4()), some[1]])
    assert [provider["uuid"] for provider in named["resource_providers"]] == [some[1], some[3]]
    placement(api, "DELETE", f"/resource_providers/{some[0]}")
    assert picture(api, uuid=some[0])["resource_providers"] == []


def test_it_is_for_operators_and_says_what_is_wrong_with_a_question(api: Any) -> None:
    assert api.user("p").get("/v1/picture").status_code == 403
    for query in ({"limit": 0}, {"limit": 1001}, {"marker": "x"}, {"marker": -1}, {"sort": "name"}):
        answer = api.get("/v1/picture", params=query)
        assert answer.status_code == 400, query
        assert str(next(iter(query))) in answer.json()["errors"][0]["detail"]
