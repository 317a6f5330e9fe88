# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Host aggregates, availability zones and server groups over HTTP, on each kind of database."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deployments import Api
from patience import wait

C = "/compute/v2.1"
NEW = {"OpenStack-API-Version": "compute 2.96"}


@pytest.fixture
def aggregate(api: Api) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return what creates aggregates; they are emptied and deleted afterwards."""
    made: list[int] = []

    def create(**wanted: Any) -> dict[str, Any]:
        body = {"aggregate": {"name": f"a-{uuid.uuid4().hex[:8]}", **wanted}}
        response = api.post(f"{C}/os-aggregates", json=body, headers=NEW)
        assert response.status_code == 200, response.text
        made.append(response.json()["aggregate"]["id"])
        return response.json()["aggregate"]

    yield create
    for id_ in made:
        found = api.get(f"{C}/os-aggregates/{id_}")
        if found.status_code == 200:
            for host in found.json()["aggregate"]["hosts"]:
                assert act(api, id_, "remove_host", host=host).status_code == 200
            assert api.delete(f"{C}/os-aggregates/{id_}").status_code == 200


@pytest.fixture
def flavor(api: Api) -> Iterator[str]:
    name = f"plain-{uuid.uuid4().hex[:8]}"
    made = api.post(f"{C}/flavors", json={"flavor": {"name": name, "vcpus": 1, "ram": 64, "disk": 1, "id": name}})
    assert made.status_code == 200, made.text
    yield name
    for server in api.get(f"{C}/servers").json()["servers"]:
        api.delete(f"{C}/servers/{server['id']}")
    wait(lambda: not api.get(f"{C}/servers").json()["servers"])
    api.delete(f"{C}/flavors/{name}")


def act(api: Api, id_: int, action: str, **wanted: Any) -> Any:
    return api.post(f"{C}/os-aggregates/{id_}/action", json={action: wanted})


def node(api: Api) -> str:
    (found,) = api.get(f"{C}/os-hypervisors", headers=NEW).json()["hypervisors"]
    return found["id"]


def placement_aggregates(api: Api) -> list[str]:
    headers = {"OpenStack-API-Version": "placement 1.39"}
    return api.get(f"/placement/resource_providers/{node(api)}/aggregates", headers=headers).json()["aggregates"]


def boot(api: Api, flavor: str, hints: dict[str, Any] | None = None, **server: Any) -> Any:
    body: dict[str, Any] = {"server": {"name": "s", "flavorRef": flavor, "networks": "none", **server}}
    if hints is not None:
        body["os:scheduler_hints"] = hints
    return api.post(f"{C}/servers", json=body, headers=NEW)


def settled(api: Api, server_id: str) -> dict[str, Any]:
    def done() -> dict[str, Any] | None:
        server = api.get(f"{C}/servers/{server_id}", headers=NEW).json()["server"]
        return server if server["status"] in ("ACTIVE", "ERROR") else None

    return wait(done)


def test_an_aggregate_is_made_filled_described_and_emptied(api: Api, aggregate) -> None:
    made = aggregate(name="gpus")
    moments = {"created_at", "deleted_at", "updated_at"}
    assert made.keys() == {"availability_zone", "deleted", "id", "name", "uuid"} | moments
    id_ = made["id"]
    assert not placement_aggregates(api)
    added = act(api, id_, "add_host", host="sim-host")
    assert added.json()["aggregate"]["hosts"] == ["sim-host"]
    assert placement_aggregates(api) == [made["uuid"]]
    assert act(api, id_, "add_host", host="sim-host").status_code == 409
    assert act(api, id_, "add_host", host="elsewhere").status_code == 404
    described = act(api, id_, "set_metadata", metadata={"ssd": "true", "rack": "r1"})
    assert described.json()["aggregate"]["metadata"] == {"ssd": "true", "rack": "r1"}
    described = act(api, id_, "set_metadata", metadata={"rack": None})
    assert described.json()["aggregate"]["metadata"] == {"ssd": "true"}
    renamed = api.put(f"{C}/os-aggregates/{id_}", json={"aggregate": {"name": "gpus2"}})
    assert renamed.json()["aggregate"]["name"] == "gpus2"
    assert renamed.json()["aggregate"]["updated_at"] is not None
    assert api.delete(f"{C}/os-aggregates/{id_}").status_code == 400
    assert act(api, id_, "remove_host", host="sim-host").json()["aggregate"]["hosts"] == []
    assert placement_aggregates(api) == []
    assert act(api, id_, "remove_host", host="sim-host").status_code == 404
    assert api.delete(f"{C}/os-aggregates/{id_}").status_code == 200
    assert api.get(f"{C}/os-aggregates/{id_}").status_code == 404


def test_names_of_aggregates_are_unique_and_bad_ones_change_nothing(api: Api, aggregate) -> None:
    made = aggregate()
    for body, status in (
        ({"aggregate": {"name": made["name"]}}, 409),
        ({"aggregate": {"name": ""}}, 400),
        ({"aggregate": {"name": "x", "availability_zone": ""}}, 400),
        ({"aggregate": {"name": "x", "availability_zone": "a:b"}}, 400),
        ({"aggregate": {"name": "x", "hosts": ["h"]}}, 400),
    ):
        assert api.post(f"{C}/os-aggregates", json=body).status_code == status, body
    assert api.get(f"{C}/os-aggregates/x").status_code == 400
    assert api.put(f"{C}/os-aggregates/{made['id']}", json={"aggregate": {}}).status_code == 400
    assert act(api, made["id"], "explode", host="h").status_code == 400
    assert [one["name"] for one in api.get(f"{C}/os-aggregates").json()["aggregates"]] == [made["name"]]


def test_a_zone_is_an_aggregates_metadata_and_a_host_is_in_one_only(api: Api, aggregate) -> None:
    def zones() -> list[str]:
        return [zone["zoneName"] for zone in api.get(f"{C}/os-availability-zone").json()["availabilityZoneInfo"]]

    assert zones() == ["nova"]
    first, second = aggregate(availability_zone="az1"), aggregate()
    assert act(api, first["id"], "add_host", host="sim-host").status_code == 200
    assert zones() == ["az1"]
    (detail,) = api.get(f"{C}/os-availability-zone/detail").json()["availabilityZoneInfo"]
    assert list(detail["hosts"]) == ["sim-host"]
    assert detail["zoneState"] == {"available": True}
    (service,) = api.get(f"{C}/os-services").json()["services"]
    assert service["zone"] == "az1"
    assert act(api, second["id"], "add_host", host="sim-host").status_code == 200
    refused = act(api, second["id"], "set_metadata", metadata={"availability_zone": "az2"})
    assert refused.status_code == 400
    assert "az1" in refused.json()["badRequest"]["message"]
    renamed = api.put(f"{C}/os-aggregates/{second['id']}", json={"aggregate": {"availability_zone": "az1"}})
    assert renamed.status_code == 200
    third = aggregate(availability_zone="az3")
    assert act(api, third["id"], "add_host", host="sim-host").status_code == 409


def test_two_zones_never_get_the_same_host_at_the_same_moment(api: Api, aggregate) -> None:
    made = [aggregate(availability_zone=f"az{number}")["id"] for number in range(4)]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda id_=id_: answers.append(act(api, id_, "add_host", host="sim-host").status_code))
        for id_ in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409]


def test_a_server_goes_to_the_zone_it_asks_for_and_keeps_its_host_there(api: Api, aggregate, flavor: str) -> None:
    refused = boot(api, flavor, availability_zone="az1")
    assert (refused.status_code, refused.json()["badRequest"]["message"]) == (
        400,
        "The requested availability zone is not available",
    )
    zone = aggregate(availability_zone="az1")
    act(api, zone["id"], "add_host", host="sim-host")
    server = settled(api, boot(api, flavor, availability_zone="az1").json()["server"]["id"])
    assert server["status"] == "ACTIVE"
    assert server["OS-EXT-AZ:availability_zone"] == server["pinned_availability_zone"] == "az1"
    free = settled(api, boot(api, flavor).json()["server"]["id"])
    assert (free["OS-EXT-AZ:availability_zone"], free["pinned_availability_zone"]) == ("az1", None)
    assert act(api, zone["id"], "remove_host", host="sim-host").status_code == 409
    assert act(api, zone["id"], "set_metadata", metadata={"availability_zone": "az9"}).status_code == 400
    api.delete(f"{C}/servers/{server['id']}")
    wait(lambda: api.get(f"{C}/servers/{server['id']}").status_code == 404)
    assert act(api, zone["id"], "remove_host", host="sim-host").status_code == 200


@pytest.mark.parametrize(
    ("version", "wanted", "shown"),
    [
        ("2.1", {"policies": ["affinity"]}, {"policies": ["affinity"], "metadata": {}}),
        ("2.15", {"policies": ["soft-anti-affinity"]}, {"policies": ["soft-anti-affinity"]}),
        ("2.64", {"policy": "anti-affinity"}, {"policy": "anti-affinity", "rules": {}}),
        (
            "2.64",
            {"policy": "anti-affinity", "rules": {"max_server_per_host": "3"}},
            {"policy": "anti-affinity", "rules": {"max_server_per_host": 3}},
        ),
    ],
)
def test_server_groups_are_made_shown_and_deleted(api: Api, version: str, wanted: dict, shown: dict) -> None:
    headers = {"OpenStack-API-Version": f"compute {version}"}
    made = api.post(f"{C}/os-server-groups", json={"server_group": {"name": "g", **wanted}}, headers=headers)
    assert made.status_code == 200, made.text
    group = made.json()["server_group"]
    assert group.items() >= ({"name": "g", "members": []} | shown).items()
    assert api.get(f"{C}/os-server-groups/{group['id']}", headers=headers).json()["server_group"] == group
    assert group in api.get(f"{C}/os-server-groups", headers=headers).json()["server_groups"]
    assert api.delete(f"{C}/os-server-groups/{group['id']}").status_code == 204
    assert api.delete(f"{C}/os-server-groups/{group['id']}").status_code == 404


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("2.1", {"policies": ["soft-affinity"]}),
        ("2.1", {"policies": ["affinity", "anti-affinity"]}),
        ("2.15", {"policy": "affinity"}),
        ("2.64", {"policies": ["affinity"]}),
        ("2.64", {"policy": "affinity", "rules": {"max_server_per_host": 2}}),
        ("2.64", {"policy": "anti-affinity", "rules": {"max_server_per_host": 0}}),
        ("2.64", {"policy": "together"}),
    ],
)
def test_a_malformed_server_group_is_refused(api: Api, version: str, wanted: dict) -> None:
    headers = {"OpenStack-API-Version": f"compute {version}"}
    made = api.post(f"{C}/os-server-groups", json={"server_group": {"name": "g", **wanted}}, headers=headers)
    assert made.status_code == 400, made.text


def test_a_servers_group_shows_in_both_and_is_nobody_elses(api: Api, flavor: str) -> None:
    body = {"server_group": {"name": "g", "policy": "anti-affinity"}}
    group = api.post(f"{C}/os-server-groups", json=body, headers=NEW).json()["server_group"]["id"]
    server = settled(api, boot(api, flavor, {"group": group}).json()["server"]["id"])
    assert server["server_groups"] == [group]
    shown = api.get(f"{C}/os-server-groups/{group}", headers=NEW).json()["server_group"]
    assert shown["members"] == [server["id"]]
    other = api.user("other")
    assert other.get(f"{C}/os-server-groups/{group}").status_code == 404
    assert other.get(f"{C}/os-server-groups").json()["server_groups"] == []
    assert boot(other, flavor, {"group": group}).status_code == 400
    assert boot(api, flavor, {"group": str(uuid.uuid4())}).status_code == 400
    assert boot(api, flavor, {"group": "not a uuid"}).status_code == 400
    assert api.delete(f"{C}/os-server-groups/{group}").status_code == 204
    assert api.get(f"{C}/servers/{server['id']}", headers=NEW).json()["server"]["server_groups"] == []


@pytest.mark.parametrize(
    "hints",
    [
        {"query": "["},
        {"query": '["xor", 1, 2]'},
        {"same_host": "not a uuid"},
        {"different_host": ["not a uuid"]},
        {"build_near_host_ip": "somewhere"},
        {"build_near_host_ip": "10.0.0.1", "cidr": "/99"},
    ],
)
def test_hints_that_make_no_sense_are_refused(api: Api, flavor: str, hints: dict[str, Any]) -> None:
    refused = boot(api, flavor, hints)
    assert refused.status_code == 400, refused.text
    assert api.get(f"{C}/servers").json()["servers"] == []


def test_hints_and_forced_hosts_decide_where_servers_go(api: Api, flavor: str) -> None:
    first = settled(api, boot(api, flavor, availability_zone="nova:sim-host").json()["server"]["id"])
    assert first["status"] == "ACTIVE"
    beside = settled(api, boot(api, flavor, {"same_host": first["id"]}).json()["server"]["id"])
    assert beside["status"] == "ACTIVE"
    apart = settled(api, boot(api, flavor, {"different_host": [first["id"]]}).json()["server"]["id"])
    assert apart["status"] == "ERROR"
    assert "DifferentHostFilter removed 1" in apart["fault"]["message"]
    assert boot(api, flavor, availability_zone="nova:elsewhere").status_code == 400
