# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Accelerator API over HTTP, on each kind of database: from a device profile to the device of a server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import patience
import pytest

A, C = "/accelerator/v2", "/compute/v2.1"
VERSION = {"OpenStack-API-Version": "accelerator 2.3, compute 2.96"}


@pytest.fixture
def profile(api: Any) -> Iterator[dict[str, Any]]:
    """A profile of two groups of a vGPU each."""
    groups = [{"resources:VGPU": 1, "trait:CUSTOM_SIMULATED": "required"}, {"resources:VGPU": "1"}]
    body = [{"name": f"gpus-{uuid.uuid4().hex[:8]}", "description": "two", "groups": groups}]
    made = api.post(f"{A}/device_profiles", json=body, headers=VERSION)
    assert made.status_code == 201, made.text
    yield made.json()
    api.delete(f"{A}/device_profiles/{made.json()['uuid']}")


@pytest.fixture
def flavor(api: Any, profile: dict[str, Any]) -> Iterator[str]:
    name = f"profiled-{uuid.uuid4().hex[:8]}"
    api.post(f"{C}/flavors", json={"flavor": {"name": name, "vcpus": 1, "ram": 64, "disk": 1, "id": name}})
    specs = {"extra_specs": {"accel:device_profile": profile["name"]}}
    assert api.post(f"{C}/flavors/{name}/os-extra_specs", json=specs).status_code == 200
    yield name
    api.delete(f"{C}/flavors/{name}")


def fault(answer: Any) -> str:
    """Return what an error says, JSON within JSON as Cyborg has it."""
    said: str = json.loads(answer.json()["error_message"])["faultstring"]
    return said


def test_a_server_gets_what_its_device_profile_asks_for_and_shows_it_as_accelerator_requests(
    api: Any, profile: dict[str, Any], flavor: str
) -> None:
    user = api.user("profiled")
    body = {"server": {"name": "one", "flavorRef": flavor, "networks": "none"}}
    server = user.post(f"{C}/servers", json=body).json()["server"]["id"]
    path = f"{C}/servers/{server}"
    patience.wait(lambda: user.get(path).json()["server"]["status"] == "ACTIVE")
    held = api.get(f"/placement/allocations/{server}").json()["allocations"]
    assert sum(it["resources"].get("VGPU", 0) for it in held.values()) == 2

    requests = api.get(f"{A}/accelerator_requests?instance={server}&bind_state=resolved").json()["arqs"]
    assert [(it["state"], it["device_profile_name"], it["device_profile_group_id"]) for it in requests] == [
        ("Bound", profile["name"], 0),
        ("Bound", profile["name"], 1),
    ]
    assert {it["device_rp_uuid"] for it in requests} <= held.keys()
    assert {it["hostname"] for it in requests} == {"sim-host"}
    assert api.get(f"{A}/accelerator_requests/{requests[1]['uuid']}").json() == requests[1]
    # Their owner sees them, but not where they are; nobody else does.
    (mine, _) = user.get(f"{A}/accelerator_requests").json()["arqs"]
    assert (mine["uuid"], mine["hostname"]) == (requests[0]["uuid"], None)
    stranger = api.user("stranger")
    assert stranger.get(f"{A}/accelerator_requests").json() == {"arqs": []}
    assert stranger.get(f"{A}/accelerator_requests/{mine['uuid']}").status_code == 404
    # The flavor is shown as it was written.
    shown = user.get(path).json()["server"]["flavor"]["extra_specs"]
    assert shown == {"accel:device_profile": profile["name"]}

    assert user.delete(path).status_code == 204
    patience.wait(lambda: user.get(path).status_code == 404)
    assert api.get(f"{A}/accelerator_requests?instance={server}").json() == {"arqs": []}


def test_profiles_are_listed_shown_by_name_too_and_deleted(api: Any, profile: dict[str, Any]) -> None:
    assert profile["groups"][0] == {"resources:VGPU": "1", "trait:CUSTOM_SIMULATED": "required"}
    name, path = profile["name"], f"{A}/device_profiles"
    user = api.user("p")
    assert [it["name"] for it in user.get(f"{path}?name={name},x").json()["device_profiles"]] == [name]
    for key in (name, profile["uuid"]):
        assert user.get(f"{path}/{key}", headers=VERSION).json()["device_profile"]["uuid"] == profile["uuid"]
    old = user.get(f"{path}/{name}", headers={"OpenStack-API-Version": "accelerator 2.1"})
    assert (old.status_code, old.headers["OpenStack-API-Version"]) == (406, "accelerator 2.1")
    body = [{"name": name, "groups": [{"resources:VGPU": 1}]}]
    assert api.post(path, json=body).status_code == 409
    assert user.post(path, json=body).status_code == 403
    assert user.delete(f"{path}/{name}").status_code == 403
    assert api.delete(f"{path}?value={name}").status_code == 204
    assert api.delete(f"{path}/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], "[]"),
        ([{"name": "a b", "groups": [{"resources:VGPU": 1}]}], "name"),
        ([{"name": "a", "groups": [{"resources:VGPU": -1}]}], "groups.0"),
        ([{"name": "a", "groups": [{"memory": "1"}]}], "groups.0"),
        ([{"name": "a", "groups": [{"trait:CUSTOM_A": "perhaps"}]}], "groups.0"),
        ([{"name": "a", "groups": [{"resources:FPGA": 1, "accel:bitstream_id": "x"}]}], "accel"),
        ([{"name": "a", "groups": [{"resources:VGPU": 1}]}] * 2, "too long"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused_by_name(api: Any, body: Any, named: str) -> None:
    refused = api.post(f"{A}/device_profiles", json=body)
    assert refused.status_code == 400
    assert named in fault(refused)
    assert "a" not in [it["name"] for it in api.get(f"{A}/device_profiles").json()["device_profiles"]]


def test_a_server_is_not_made_of_a_profile_that_is_gone(api: Any, profile: dict[str, Any], flavor: str) -> None:
    assert api.delete(f"{A}/device_profiles/{profile['uuid']}").status_code == 204
    body = {"server": {"name": "one", "flavorRef": flavor, "networks": "none"}}
    refused = api.post(f"{C}/servers", json=body)
    assert refused.status_code == 400
    assert profile["name"] in refused.json()["badRequest"]["message"]


def test_devices_are_seen_closed_and_opened_with_what_is_said_of_them(api: Any) -> None:
    devices = api.get(f"{A}/devices?hostname=sim-host&type=GPU", headers=VERSION).json()["devices"]
    assert len(devices) == 2
    device = devices[0]
    assert device["status"] == "enabled"
    assert "status" not in api.get(f"{A}/devices/{device['uuid']}").json()
    assert api.post(f"{A}/devices/{device['uuid']}/disable").status_code == 200
    try:
        assert api.get(f"{A}/devices/{device['uuid']}", headers=VERSION).json()["status"] == "maintaining"
    finally:
        assert api.post(f"{A}/devices/{device['uuid']}/enable").status_code == 200
    (deployable,) = (it for it in api.get(f"{A}/deployables").json()["deployables"] if it["uuid"] == device["uuid"])
    assert api.get(f"{A}/deployables/{device['uuid']}").json() == deployable
    said = [
        it for it in api.get(f"{A}/attributes").json()["attributes"] if it["deployable_id"] == deployable["device_id"]
    ]
    assert ("rc", "VGPU") in {(it["key"], it["value"]) for it in said}
    for it in said:
        assert api.get(f"{A}/attributes/{it['uuid']}").json() == {"attribute": it}
    assert api.user("p").get(f"{A}/devices").status_code == 403


@pytest.mark.parametrize("path", ["devices", "deployables", "attributes", "accelerator_requests", "device_profiles"])
@pytest.mark.parametrize("key", ["nothing", "aaaaaaaa-0000-4000-8000-000000000001"])
def test_what_is_not_there_is_not_found(api: Any, path: str, key: str) -> None:
    missing = api.get(f"{A}/{path}/{key}", headers=VERSION)
    assert missing.status_code == 404
    assert key in fault(missing)


def test_a_version_that_there_is_not_is_refused(api: Any) -> None:
    for version in ("2.4", "3.0", "x"):
        refused = api.get(f"{A}/devices", headers={"OpenStack-API-Version": f"accelerator {version}"})
        assert refused.status_code == 406
