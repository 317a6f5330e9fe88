# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerator requests that are made by themselves and bound to servers, over HTTP, on each kind of database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import patience
import pytest
from deployments import Api

A, C = "/accelerator/v2", "/compute/v2.1"
R = f"{A}/accelerator_requests"
VERSION = {"OpenStack-API-Version": "accelerator 2.3, compute 2.96"}
NOBODY = "aaaaaaaa-0000-4000-8000-000000000001"
REMOVE = [{"path": f"/{name}", "op": "remove"} for name in ("hostname", "instance_uuid", "device_rp_uuid")]


@pytest.fixture
def user(api: Any) -> Api:
    made: Api = api.user(f"p-{uuid.uuid4().hex[:8]}")
    made.headers.update(VERSION)
    return made


@pytest.fixture
def profile(api: Any) -> Iterator[str]:
    """A profile of three vGPUs, in two groups."""
    groups = [{"resources:VGPU": 1, "trait:CUSTOM_SIMULATED": "required"}, {"resources:VGPU": 2}]
    name = f"gpus-{uuid.uuid4().hex[:8]}"
    assert api.post(f"{A}/device_profiles", json=[{"name": name, "groups": groups}]).status_code == 201
    yield name
    api.delete(f"{A}/device_profiles/{name}")


@pytest.fixture
def flavor(api: Any) -> Iterator[str]:
    name = f"plain-{uuid.uuid4().hex[:8]}"
    api.post(f"{C}/flavors", json={"flavor": {"name": name, "vcpus": 1, "ram": 64, "disk": 1, "id": name}})
    yield name
    api.delete(f"{C}/flavors/{name}")


@pytest.fixture
def server(user: Api, flavor: str) -> Iterator[str]:
    """A server that runs, without accelerators."""
    made = create_server(user, flavor)
    yield made
    user.delete(f"{C}/servers/{made}")
    patience.wait(lambda: user.get(f"{C}/servers/{made}").status_code == 404)


@pytest.fixture
def gpus(api: Any) -> list[str]:
    return [it["uuid"] for it in api.get(f"{A}/devices?hostname=sim-host&type=GPU").json()["devices"]]


def create_server(user: Api, flavor: str) -> str:
    body = {"server": {"name": "one", "flavorRef": flavor, "networks": "none"}}
    made: str = user.post(f"{C}/servers", json=body).json()["server"]["id"]
    patience.wait(lambda: user.get(f"{C}/servers/{made}").json()["server"]["status"] == "ACTIVE")
    return made


def create(user: Api, profile: str, **more: Any) -> list[str]:
    made = user.post(R, json={"device_profile_name": profile, **more})
    assert made.status_code == 201, made.text
    return [arq["uuid"] for arq in made.json()["arqs"]]


def adding(server: str, device: str, host: str = "sim-host", **more: str) -> list[dict[str, str]]:
    values = {"hostname": host, "instance_uuid": server, "device_rp_uuid": device, **more}
    return [{"path": f"/{name}", "op": "add", "value": value} for name, value in values.items()]


def states(user: Api, *uuids: str) -> list[str]:
    return [user.get(f"{R}/{one}").json().get("state", "") for one in uuids]


def held(api: Api, server: str) -> dict[str, int]:
    """Return the vGPUs that a server holds, by device."""
    shares = api.get(f"/placement/allocations/{server}").json()["allocations"]
    return {device: it["resources"]["VGPU"] for device, it in shares.items() if "VGPU" in it["resources"]}


def fault(answer: Any) -> str:
    """Return what an error says, JSON within JSON as Cyborg has it."""
    said: str = json.loads(answer.json()["error_message"])["faultstring"]
    return said


def test_requests_are_made_bound_together_unbound_bound_again_and_deleted(
    api: Any, user: Api, profile: str, server: str, gpus: list[str]
) -> None:
    made = user.post(R, json={"device_profile_name": profile}).json()["arqs"]
    assert [(it["state"], it["device_profile_group_id"], it["instance_uuid"]) for it in made] == [
        ("Initial", 0, None),
        ("Initial", 1, None),
        ("Initial", 1, None),
    ]
    first, second, third = (it["uuid"] for it in made)
    assert user.get(f"{R}?bind_state=resolved").json() == {"arqs": []}

    body = {first: adding(server, gpus[0]), second: adding(server, gpus[1], project_id=made[0]["project_id"])}
    assert user.patch(R, json=body).status_code == 202
    patience.wait(lambda: states(user, first, second, third) == ["Bound", "Bound", "Initial"])
    assert user.patch(R, json=body).status_code == 202, "asked again it is so already"
    assert held(api, server) == dict.fromkeys(gpus, 1)
    bound = api.get(f"{R}?instance={server}&bind_state=resolved").json()["arqs"]
    assert {(it["uuid"], it["device_rp_uuid"], it["hostname"]) for it in bound} == {
        (first, gpus[0], "sim-host"),
        (second, gpus[1], "sim-host"),
    }
    assert {it["hostname"] for it in user.get(R).json()["arqs"]} == {None}
    listed = user.get(f"/v1/servers/{server}/accelerators").json()["accelerators"]
    assert [(it["state"], it["provider_uuid"]) for it in listed] == [("attached", gpu) for gpu in gpus]

    elsewhere = user.patch(R, json={first: adding(server, gpus[1])})
    assert (elsewhere.status_code, "unbind it first" in fault(elsewhere)) == (409, True)
    assert user.patch(R, json={first: REMOVE}).status_code == 202
    patience.wait(lambda: states(user, first, second) == ["Unbound", "Bound"])
    assert held(api, server) == {gpus[1]: 1}
    # As openstacksdk asks.
    assert user.patch(f"{R}/{first}", json={first: adding(server, gpus[1])}).status_code == 202
    patience.wait(lambda: states(user, first) == ["Bound"])
    assert held(api, server) == {gpus[1]: 2}

    assert user.delete(f"{R}/{third}").status_code == 204
    assert user.delete(f"{R}?arqs={first},{second}").status_code == 204
    assert set(states(user, first, second)) <= {"Deleting", ""}
    patience.wait(lambda: user.get(R).json() == {"arqs": []})
    assert held(api, server) == {}
    assert user.delete(f"{R}?arqs={first}").status_code == 404


def test_a_server_that_is_deleted_takes_what_is_bound_to_it_along(
    user: Api, profile: str, flavor: str, gpus: list[str]
) -> None:
    one, two, other = create(user, profile)
    server = create_server(user, flavor)
    assert user.patch(R, json={uuid_: adding(server, gpus[0]) for uuid_ in (one, two)}).status_code == 202
    assert user.delete(f"{C}/servers/{server}").status_code == 204
    refused = user.patch(R, json={other: adding(server, gpus[0])})
    assert refused.status_code in (404, 409), "it is going, or gone"
    patience.wait(lambda: [it["uuid"] for it in user.get(R).json()["arqs"]] == [other])
    assert states(user, other) == ["Initial"]


def test_all_that_is_bound_to_a_server_is_deleted_by_the_server(
    api: Any, user: Api, profile: str, server: str, gpus: list[str]
) -> None:
    one, two, other = create(user, profile)
    user.patch(R, json={uuid_: adding(server, gpus[0]) for uuid_ in (one, two)})
    patience.wait(lambda: states(user, one, two) == ["Bound", "Bound"])
    for _ in range(2):
        assert user.delete(f"{R}?instance={server}").status_code == 204
    patience.wait(lambda: [it["uuid"] for it in user.get(R).json()["arqs"]] == [other])
    assert held(api, server) == {}
    assert user.delete(R).status_code == user.delete(f"{R}?instance={server}&arqs={other}").status_code == 400


def test_what_a_server_has_by_its_flavor_is_not_bound_unbound_or_deleted_by_itself(
    api: Any, user: Api, profile: str, flavor: str, gpus: list[str]
) -> None:
    specs = {"extra_specs": {"accel:device_profile": profile}}
    assert api.post(f"{C}/flavors/{flavor}/os-extra_specs", json=specs).status_code == 200
    server = create_server(user, flavor)
    of_flavor = user.get(R).json()["arqs"][0]["uuid"]
    (own,) = create(user, profile, device_profile_group_id=0)
    for refused in (
        user.delete(f"{R}?arqs={own},{of_flavor}"),
        user.delete(f"{R}?instance={server}"),
        user.patch(R, json={of_flavor: REMOVE}),
        user.patch(R, json={of_flavor: adding(server, gpus[0])}),
    ):
        assert (refused.status_code, "flavor of instance" in fault(refused)) == (403, True)
    assert states(user, own, of_flavor) == ["Initial", "Bound"]
    user.delete(f"{C}/servers/{server}")
    patience.wait(lambda: [it["uuid"] for it in user.get(R).json()["arqs"]] == [own])


def test_requests_are_their_projects_and_operators_bind_to_any_servers(
    api: Any, user: Api, profile: str, server: str, gpus: list[str]
) -> None:
    stranger = api.user("stranger")
    (theirs,) = create(stranger, profile, device_profile_group_id="0")
    assert user.get(f"{R}/{theirs}").status_code == 404
    assert user.delete(f"{R}/{theirs}").status_code == 404
    assert user.patch(R, json={theirs: adding(server, gpus[0])}).status_code == 404
    assert stranger.patch(R, json={theirs: adding(server, gpus[0])}).status_code == 404
    assert api.user("stranger", roles="reader").delete(f"{R}/{theirs}").status_code == 403
    assert stranger.delete(f"{R}/{theirs}").status_code == 204

    (operators,) = create(api, profile, device_profile_group_id=0)
    assert api.patch(R, json={operators: adding(server, gpus[0])}).status_code == 202
    # It is the server's owner's from then on, as with Cyborg.
    patience.wait(lambda: states(user, operators) == ["Bound"])
    assert user.delete(f"{R}/{operators}").status_code == 204


def test_a_project_has_no_more_unbound_than_it_may(user: Api, profile: str) -> None:
    for _ in range(42):  # three each
        create(user, profile)
    create(user, profile, device_profile_group_id=1)
    refused = user.post(R, json={"device_profile_name": profile})
    assert (refused.status_code, "128" in fault(refused)) == (403, True)
    several = [it["uuid"] for it in user.get(R).json()["arqs"]]
    assert len(several) == 128
    for start in (0, 64):
        assert user.delete(f"{R}?arqs={','.join(several[start : start + 64])}").status_code == 204


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 400, "device_profile_name"),
        ({"device_profile_name": "no-such"}, 404, "no-such"),
        ({"device_profile_group_id": 2}, 400, "groups 0 to 1"),
        ({"device_profile_group_id": "x"}, 400, "device_profile_group_id"),
        ({"image_uuid": "x"}, 400, "image_uuid"),
        ({"image_uuid": NOBODY}, 400, "no FPGA"),
        ({"more": 1}, 400, "more"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    user: Api, profile: str, body: dict[str, Any], status: int, named: str
) -> None:
    refused = user.post(R, json={"device_profile_name": profile, **body} if body else {})
    assert (refused.status_code, named in fault(refused)) == (status, True), refused.text
    assert user.get(R).json() == {"arqs": []}


def test_what_cannot_be_bound_is_refused_by_name(user: Api, profile: str, server: str, gpus: list[str]) -> None:
    one, two = create(user, profile, device_profile_group_id=1)
    right = adding(server, gpus[0])
    for body, status, named in [
        ({}, 400, "{}"),
        ({"x": right}, 400, "x"),
        ({one: []}, 400, "[]"),
        ({one: right[1:]}, 400, "hostname"),
        ({one: [*right, {"path": "/state", "op": "add", "value": "Bound"}]}, 400, "/state"),
        ({one: [*right[1:], REMOVE[0]]}, 400, "Every op"),
        ({one: [{**right[0], "op": "replace"}, *right[1:]]}, 400, "replace"),
        ({one: right, two: adding(NOBODY, gpus[0])}, 400, "one server"),
        ({one: adding(NOBODY, gpus[0])}, 404, NOBODY),
        ({NOBODY: right}, 404, NOBODY),
        ({one: adding(server, gpus[0], host="other")}, 409, "host other"),
        ({one: adding(server, gpus[0], project_id="other")}, 409, "project other"),
        ({one: adding(server, NOBODY)}, 409, NOBODY),
    ]:
        refused = user.patch(R, json=body)
        assert (refused.status_code, named in fault(refused)) == (status, True), (body, refused.text)
    assert user.patch(f"{R}/{two}", json={one: right}).status_code == 400
    old = {"OpenStack-API-Version": "accelerator 2.0"}
    assert user.patch(R, json={one: adding(server, gpus[0], project_id="p")}, headers=old).status_code == 406
    assert states(user, one, two) == ["Initial", "Initial"]


def test_of_two_that_bind_one_request_at_the_same_time_one_succeeds(
    api: Any, user: Api, profile: str, server: str, gpus: list[str]
) -> None:
    (one,) = create(user, profile, device_profile_group_id=0)
    with ThreadPoolExecutor(2) as pool:
        each = pool.map(lambda gpu: user.patch(R, json={one: adding(server, gpu)}), gpus)
        assert sorted(answer.status_code for answer in each) == [202, 409]
    patience.wait(lambda: states(user, one) == ["Bound"])
    assert list(held(api, server).values()) == [1]


def test_no_more_is_bound_than_a_device_has(api: Any, user: Api, profile: str, server: str, gpus: list[str]) -> None:
    several = [one for _ in range(2) for one in create(user, profile)]
    body = {one: adding(server, gpus[0]) for one in several}
    refused = user.patch(R, json=body)
    assert (refused.status_code, "has no such accelerator" in fault(refused)) == (409, True)
    assert held(api, server) == {}
    assert set(states(user, *several)) == {"Initial"}


def test_operators_say_things_of_devices_and_take_them_back(api: Any, user: Api, gpus: list[str]) -> None:
    attributes = f"{A}/attributes"
    number = next(it for it in api.get(f"{A}/deployables").json()["deployables"] if it["uuid"] == gpus[0])["device_id"]
    said = {"deployable_id": str(number), "key": "rack", "value": "R7"}
    made = api.post(attributes, json={"attribute": said})
    assert made.status_code == 201, made.text
    attribute = made.json()["attribute"]
    assert (attribute["deployable_id"], attribute["key"], attribute["value"]) == (number, "rack", "R7")
    assert api.get(f"{attributes}/{attribute['uuid']}").json() == made.json()
    assert api.get(f"{attributes}?deployable_id={number}&key=rack").json() == {"attributes": [attribute]}
    assert api.post(attributes, json={**said, "deployable_id": gpus[0]}).status_code == 409
    assert api.post(attributes, json={**said, "deployable_id": NOBODY}).status_code == 404
    for wrong in ({**said, "key": ""}, {**said, "more": 1}, {"attribute": said, "more": 1}, {**said, "value": 1}):
        assert api.post(attributes, json=wrong).status_code == 400
    for key in ("rc", "trait7"):
        refused = api.post(attributes, json={**said, "key": key})
        assert (refused.status_code, "resource provider trait set" in fault(refused)) == (400, True)
    assert user.post(attributes, json=said).status_code == 403

    reported = api.get(f"{attributes}?deployable_id={number}&key=rc").json()["attributes"][0]
    refused = api.delete(f"{attributes}/{reported['uuid']}")
    assert (refused.status_code, "resource provider trait set" in fault(refused)) == (403, True)
    assert user.delete(f"{attributes}/{attribute['uuid']}").status_code == 403
    assert api.delete(f"{attributes}/{attribute['uuid']}").status_code == 204
    assert api.delete(f"{attributes}/{attribute['uuid']}").status_code == 404
    assert api.get(f"{attributes}?key=rack").json() == {"attributes": []}
