# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/placements:simulate`` over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

PATH = "/v1/placements:simulate"


@pytest.fixture
def flavor(api: Any) -> Iterator[str]:
    asked = {"flavor": {"name": f"sim-{uuid.uuid4()}", "vcpus": 1, "ram": 64, "disk": 1}}
    id_ = api.post("/compute/v2.1/flavors", json=asked).json()["flavor"]["id"]
    yield id_
    api.delete(f"/compute/v2.1/flavors/{id_}")


def test_an_operator_is_told_where_servers_would_go_and_what_would_be_left(api: Any, flavor: str) -> None:
    body = {"flavor": flavor, "count": 2, "properties": {"resources:VGPU": 1}, "seed": "s"}
    answer = api.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()["placement"]
    assert (told["count"], told["placed"], told["seed"]) == (2, 2, "s")
    (host,) = told["hosts"]
    assert (host["host"], host["servers"]) == ("sim-host", 2)
    assert sum(device["resources"].get("VGPU", 0) for device in host["devices"]) == 2
    assert told["free"]["VGPU"]["free_before"] - told["free"]["VGPU"]["free_after"] == 2
    assert told["explanation"]["failure"] is None
    # Nothing was claimed: it is as it was.
    assert api.post(PATH, json=body).json()["placement"] == told


def test_what_does_not_fit_is_explained(api: Any, flavor: str) -> None:
    told = api.post(PATH, json={"flavor": flavor, "properties": {"resources:VGPU": "99"}}).json()["placement"]
    assert told["placed"] == 0
    assert told["hosts"] == []
    assert "asked 99" in told["explanation"]["failure"]


def test_it_is_for_operators(api: Any, flavor: str) -> None:
    assert api.user("p").post(PATH, json={"flavor": flavor}).status_code == 403


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "flavor"),
        ({"flavor": "no-such"}, "no-such"),
        ({"flavor": None, "count": 0}, "count"),
        ({"flavor": None, "count": 10**9}, "in one request"),
        ({"flavor": None, "availability_zone": "no-such"}, "availability zone"),
        ({"flavor": None, "properties": {"resources:VGPU": "many"}}, "resources:VGPU"),
        ({"flavor": None, "hints": {"group": str(uuid.UUID(int=1))}}, "00000001"),
        ({"flavor": None, "more": 1}, "more"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(api: Any, flavor: str, body: dict[str, Any], told: str) -> None:
    asked = {key: flavor if key == "flavor" and value is None else value for key, value in body.items()}
    answer = api.post(PATH, json=asked)
    assert answer.status_code == 400
    assert told in answer.json()["errors"][0]["detail"]
