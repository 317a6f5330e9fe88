# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What Nova's microversions show, take and refuse, where one changed it for many calls at once."""

from __future__ import annotations

import uuid

import pytest
from patience import wait

C = "/compute/v2.1"
# Shown by GET always, by PUT and rebuild from 2.75 on.
ONCE_EXTENSIONS = {
    *("OS-EXT-AZ:availability_zone", "config_drive", "OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at"),
    *("OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state", "OS-EXT-SRV-ATTR:host"),
    "os-extended-volumes:volumes_attached",
}


@pytest.fixture
def server(api, create) -> str:
    server_id: str = create()["server"]["id"]
    wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")
    return server_id


@pytest.mark.parametrize(
    ("path", "since"),
    [
        *(("/servers", 75), ("/servers/detail", 75), ("/flavors", 75), ("/flavors/detail", 75), ("/os-keypairs", 75)),
        *(("/os-server-groups", 75), ("/os-services", 75), ("/limits", 75), ("/os-quota-sets/some", 75)),
        *(("/os-simple-tenant-usage", 75), ("/os-simple-tenant-usage/some", 75)),
        *(("/os-hypervisors", 53), ("/os-hypervisors/detail", 53), ("/os-migrations", 59)),
    ],
)
def test_parameters_that_nobody_knows_are_refused_from_a_version_on(api, path, since):
    before, then = (api.at(f"2.{minor}").get(f"{C}{path}?frobnicate=1") for minor in (since - 1, since))
    assert (before.status_code, then.status_code) == (200, 400), then.text
    assert "'frobnicate' was unexpected" in then.json()["badRequest"]["message"]


def test_parameters_of_a_servers_actions_and_of_a_hypervisor_are_known_or_refused(api, server):
    path = f"{C}/servers/{server}/os-instance-actions?changes-before=2030-01-01T00:00:00Z"
    assert [api.at(f"2.{minor}").get(path).status_code for minor in (57, 58, 65, 66)] == [200, 400, 400, 200]
    (hypervisor,) = api.at("2.53").get(f"{C}/os-hypervisors").json()["hypervisors"]
    assert api.at("2.75").get(f"{C}/os-keypairs/none?frobnicate=1").status_code == 400
    path = f"{C}/os-hypervisors/{hypervisor['id']}"
    assert api.at("2.53").get(f"{path}?with_servers=yes").status_code == 200
    assert api.at("2.53").get(f"{path}?frobnicate=1").status_code == 400


def test_numbers_that_no_aggregate_can_have_are_not_found(api):
    for number, status in (("-1", 404), ("2147483648", 404), ("9" * 40, 404), ("1.5", 400), ("x", 400)):
        assert api.get(f"{C}/os-aggregates/{number}").status_code == status, number


def test_quota_classes_have_what_nova_shows_of_networks_until_2_50(api):
    for minor, there in ((1, True), (49, True), (50, False)):
        shown = api.at(f"2.{minor}").get(f"{C}/os-quota-class-sets/default").json()["quota_class_set"]
        assert ("fixed_ips" in shown, "server_groups" in shown) == (there, not there)


def test_migrations_know_their_filters_from_the_version_that_brought_them(api):
    def get(minor: int, query: str) -> int:
        status: int = api.at(f"2.{minor}").get(f"{C}/os-migrations?{query}").status_code
        return status

    known = "status=done&migration_type=resize&host=h&source_compute=s&instance_uuid=u&hidden=0&limit=5"
    assert get(59, known) == 200
    assert [get(minor, "changes-before=2030-01-01T00:00:00Z") for minor in (65, 66)] == [400, 200]
    assert [get(minor, "user_id=u&project_id=p") for minor in (79, 80)] == [400, 200]


def test_a_change_is_answered_with_all_that_is_shown_from_2_75_on(api, server):
    path = f"{C}/servers/{server}"
    for minor in (1, 74):
        told = api.at(f"2.{minor}").put(path, json={"server": {"name": "new"}}).json()["server"]
        assert told["name"] == "new"
        assert not ONCE_EXTENSIONS & told.keys()
        assert "key_name" not in told
    told = api.at("2.75").put(path, json={"server": {"name": "newer"}}).json()["server"]
    assert told.keys() == api.at("2.75").get(path).json()["server"].keys()


def test_a_hypervisor_without_servers_says_so_from_2_75_on(api, create):
    def listed(minor: int) -> object:
        (found,) = api.at(f"2.{minor}").get(f"{C}/os-hypervisors?with_servers=true").json()["hypervisors"]
        return found.get("servers")

    assert (listed(53), listed(74), listed(75)) == (None, None, [])
    server_id = create()["server"]["id"]
    wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")
    assert [one["uuid"] for one in listed(75)] == [server_id]


def test_hypervisors_and_services_go_by_uuids_from_2_53_on(api):
    number = api.at("2.52").get(f"{C}/os-hypervisors").json()["hypervisors"][0]["id"]
    assert api.at("2.52").get(f"{C}/os-hypervisors/{number}").status_code == 200
    assert api.at("2.53").get(f"{C}/os-hypervisors/1").status_code == 400
    assert api.at("2.53").get(f"{C}/os-hypervisors/{uuid.uuid4()}").status_code == 404
    assert api.at("2.53").put(f"{C}/os-services/1", json={"status": "enabled"}).status_code == 400
    assert api.at("2.53").put(f"{C}/os-services/{uuid.uuid4()}", json={"status": "enabled"}).status_code == 404


def test_servers_are_found_by_zone_node_and_second_as_they_show_them(api, server):
    def found(**query: str) -> list[str]:
        return [one["id"] for one in api.get(f"{C}/servers", params=query).json()["servers"]]

    shown = api.at("2.3").get(f"{C}/servers/{server}").json()["server"]
    assert found(availability_zone=shown["OS-EXT-AZ:availability_zone"]) == [server]
    assert found(availability_zone="elsewhere") == []
    assert found(node=shown["OS-EXT-SRV-ATTR:hypervisor_hostname"]) == [server]
    assert found(created_at=shown["created"]) == [server]
    assert found(launched_at=shown["OS-SRV-USG:launched_at"]) == [server]
    assert (found(progress="0"), found(progress="50")) == ([server], [])
    assert found(limit="0") == []

    path = f"{C}/os-aggregates"
    zone = f"zone-{uuid.uuid4().hex[:8]}"
    made = api.post(path, json={"aggregate": {"name": zone, "availability_zone": zone}}).json()["aggregate"]
    member = {"host": shown["OS-EXT-SRV-ATTR:host"]}
    assert api.post(f"{path}/{made['id']}/action", json={"add_host": member}).status_code == 200
    try:
        assert found(availability_zone=zone) == [server]
        assert found(availability_zone="nova") == []
    finally:
        api.post(f"{path}/{made['id']}/action", json={"remove_host": member})
        api.delete(f"{path}/{made['id']}")


def test_a_boolean_may_be_spelled_as_nova_spells_it(api):
    for spelling, public in (("NO", False), ("Off", False), ("t", True), ("YES", True)):
        name = f"flavor-{uuid.uuid4().hex[:8]}"
        wanted = {"name": name, "id": name, "ram": 1, "vcpus": 1, "disk": 0, "os-flavor-access:is_public": spelling}
        made = api.post(f"{C}/flavors", json={"flavor": wanted})
        assert made.status_code == 200, made.text
        assert made.json()["flavor"]["os-flavor-access:is_public"] is public
        api.delete(f"{C}/flavors/{name}")
    (service,) = api.at("2.53").get(f"{C}/os-services").json()["services"]
    for spelling, down in (("yes", True), ("0", False)):
        answer = api.at("2.53").put(f"{C}/os-services/{service['id']}", json={"forced_down": spelling})
        assert (answer.status_code, answer.json()["service"]["forced_down"]) == (200, down)
