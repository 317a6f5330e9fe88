# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers from request to simulated guest, over HTTP, on each kind of database."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from patience import wait

C = "/compute/v2.1"


def show(api, server_id: str) -> dict[str, Any]:
    response = api.get(f"{C}/servers/{server_id}")
    assert response.status_code == 200, response.text
    return response.json()["server"]


def active(api, server_id: str) -> dict[str, Any]:
    def settled() -> dict[str, Any] | None:
        server = show(api, server_id)
        assert server["status"] != "ERROR", server["fault"]
        return server if server["status"] == "ACTIVE" else None

    return wait(settled)


def allocations(api, server_id: str) -> dict[str, Any]:
    headers = {"OpenStack-API-Version": "placement 1.39"}
    return api.get(f"/placement/allocations/{server_id}", headers=headers).json()["allocations"]


def test_a_server_gets_a_device_runs_and_gives_it_back(api, create):
    server_id = create()["server"]["id"]
    server = active(api, server_id)
    assert server["OS-EXT-SRV-ATTR:host"] == "sim-host"
    assert server["OS-EXT-STS:power_state"] == 1
    held = allocations(api, server_id)
    assert sorted(name for share in held.values() for name in share["resources"]) == [
        "DISK_GB",
        "MEMORY_MB",
        "VCPU",
        "VGPU",
    ]

    assert api.delete(f"{C}/servers/{server_id}").status_code == 204
    wait(lambda: api.get(f"{C}/servers/{server_id}").status_code == 404)
    assert allocations(api, server_id) == {}


def test_the_console_shows_what_the_guest_wrote(api, create):
    server_id = create()["server"]["id"]
    active(api, server_id)
    action = f"{C}/servers/{server_id}/action"
    output = api.post(action, json={"os-getConsoleOutput": {}}).json()["output"]
    assert "simulated" in output
    last = api.post(action, json={"os-getConsoleOutput": {"length": "1"}}).json()["output"]
    assert last == output.splitlines(keepends=True)[-1]


def test_many_servers_of_one_request_are_numbered_and_placed_together(api, create):
    made = create(name="web", min_count=3, max_count=3, return_reservation_id=True)
    listed = api.get(f"{C}/servers/detail", params={"reservation_id": made["reservation_id"]}).json()["servers"]
    assert sorted(server["name"] for server in listed) == ["web-1", "web-2", "web-3"]
    for server in listed:
        active(api, server["id"])


def test_more_than_fits_ends_in_error_and_says_what_was_short(api, create):
    # Eight vGPUs in all.
    made = create(name="web", min_count=1, max_count=10, return_reservation_id=True)
    query = {"reservation_id": made["reservation_id"]}

    def settled() -> list[dict[str, Any]]:
        servers = api.get(f"{C}/servers/detail", params=query).json()["servers"]
        return servers if all(server["status"] in ("ACTIVE", "ERROR") for server in servers) else []

    servers = wait(settled)
    failed = [server for server in servers if server["status"] == "ERROR"]
    assert len(failed) == 2
    assert "No valid host was found" in failed[0]["fault"]["message"]
    assert failed[0]["fault"]["code"] == 500


def test_min_count_is_all_or_nothing(api, create):
    made = create(min_count=9, max_count=10, return_reservation_id=True)
    query = {"reservation_id": made["reservation_id"], "status": "ERROR"}
    wait(lambda: len(api.get(f"{C}/servers", params=query).json()["servers"]) == 10)


def test_a_decision_is_explained_to_its_owner_and_to_nobody_else(api, create):
    alice, bob = api.user("alice"), api.user("bob")
    server_id = create(alice)["server"]["id"]
    active(alice, server_id)
    told = alice.get(f"/v1/servers/{server_id}/explanation")
    assert told.status_code == 200, told.text
    explanation = told.json()["explanation"]
    assert any("VGPU" in device["resources"] for device in explanation["selection"]["devices"])
    assert {stage["name"] for stage in explanation["stages"]} >= {"ComputeFilter", "VGPU"}
    assert "sim-host" not in told.text
    assert explanation["selection"]["host"] == show(alice, server_id)["hostId"]
    by_operator = api.get(f"/v1/servers/{server_id}/explanation")
    assert by_operator.json()["explanation"]["selection"]["host"] == "sim-host"

    refused = bob.get(f"/v1/servers/{server_id}/explanation")
    assert refused.status_code == 404
    (error,) = refused.json()["errors"]
    assert error["status"] == 404
    assert error["code"] == "accelsched.not_found"
    assert error["request_id"] == refused.headers["x-openstack-request-id"]


def test_other_projects_servers_do_not_exist(api, create):
    alice, bob = api.user("alice"), api.user("bob")
    server_id = create(alice)["server"]["id"]
    path = f"{C}/servers/{server_id}"
    assert bob.get(path).status_code == 404
    assert bob.put(path, json={"server": {"name": "stolen"}}).status_code == 404
    assert bob.delete(path).status_code == 404
    assert bob.post(path + "/action", json={"os-getConsoleOutput": {}}).status_code == 404
    assert bob.get(path + "/metadata").status_code == 404
    assert bob.get(f"{C}/servers").json()["servers"] == []
    assert show(alice, server_id)["name"] == "one"
    assert show(api, server_id)["tenant_id"] == "alice"


def test_readers_look_and_do_not_touch(api, create):
    server_id = create(api.user("alice"))["server"]["id"]
    reader = api.user("alice", roles="reader")
    assert "OS-EXT-SRV-ATTR:host" not in show(reader, server_id)
    for response in (
        reader.delete(f"{C}/servers/{server_id}"),
        reader.post(f"{C}/servers", json={"server": {"name": "x", "flavorRef": "y", "networks": "none"}}),
        reader.get(f"{C}/servers?all_tenants=1"),
        reader.get(f"{C}/os-hypervisors"),
        reader.post(f"{C}/flavors", json={"flavor": {"name": "x", "vcpus": 1, "ram": 1, "disk": 1}}),
    ):
        assert response.status_code == 403, response.text
        assert response.json()["forbidden"]["code"] == 403


def test_a_server_nobody_placed_is_gone_at_once_when_deleted(api, create):
    disabled = api.get(f"{C}/os-services").json()["services"][0]["id"]
    assert api.put(f"{C}/os-services/{disabled}", json={"status": "disabled", "disabled_reason": "test"}).ok
    try:
        server_id = create()["server"]["id"]
        wait(lambda: show(api, server_id)["status"] == "ERROR")
        assert "COMPUTE_STATUS_DISABLED removed 1" in show(api, server_id)["fault"]["message"]
        assert api.delete(f"{C}/servers/{server_id}").status_code == 204
        assert api.get(f"{C}/servers/{server_id}").status_code == 404
    finally:
        assert api.put(f"{C}/os-services/{disabled}", json={"status": "enabled"}).ok


def test_metadata_is_read_and_written_item_by_item(api, create):
    server_id = create(metadata={"a": "1"})["server"]["id"]
    path = f"{C}/servers/{server_id}/metadata"
    active(api, server_id)
    assert api.post(path, json={"metadata": {"b": "2"}}).json() == {"metadata": {"a": "1", "b": "2"}}
    assert api.put(f"{path}/a", json={"meta": {"a": "3"}}).json() == {"meta": {"a": "3"}}
    assert api.put(f"{path}/a", json={"meta": {"b": "3"}}).status_code == 400
    assert api.delete(f"{path}/b").status_code == 204
    assert api.get(f"{path}/b").status_code == 404
    assert api.put(path, json={"metadata": {"c": "4"}}).json() == {"metadata": {"c": "4"}}
    assert show(api, server_id)["metadata"] == {"c": "4"}


def test_a_locked_servers_metadata_is_its_own(api, create):
    user = api.user("metadata")
    server_id = create(user)["server"]["id"]
    active(user, server_id)
    assert user.post(f"{C}/servers/{server_id}/action", json={"lock": None}).status_code == 202
    path = f"{C}/servers/{server_id}/metadata"
    for response in (
        user.post(path, json={"metadata": {"a": "1"}}),
        user.put(f"{path}/a", json={"meta": {"a": "1"}}),
        user.delete(f"{path}/a"),
    ):
        assert response.status_code == 409
    assert api.post(path, json={"metadata": {"a": "1"}}).json() == {"metadata": {"a": "1"}}
    assert user.post(f"{C}/servers/{server_id}/action", json={"unlock": None}).status_code == 202


def test_lists_are_paged_sorted_and_filtered(api, create):
    create(name="node", max_count=5, metadata={"k": "v"})
    create(name="other.host")
    wait(lambda: len(api.get(f"{C}/servers", params={"status": "ACTIVE"}).json()["servers"]) == 6)

    def names(**query: Any) -> list[str]:
        response = api.get(f"{C}/servers", params=query)
        assert response.status_code == 200, response.text
        return [server["name"] for server in response.json()["servers"]]

    everything = names(sort_key="display_name", sort_dir="asc")
    assert everything == ["node-1", "node-2", "node-3", "node-4", "node-5", "other.host"]
    assert names(sort_key="display_name", sort_dir="desc") == everything[::-1]
    for sort in ("display_name", "host", "launched_at", "created_at", "uuid", "vm_state"):
        for direction in ("asc", "desc"):
            whole, seen = names(sort_key=sort, sort_dir=direction), []
            page = api.get(f"{C}/servers", params={"sort_key": sort, "sort_dir": direction, "limit": 4}).json()
            seen += [server["name"] for server in page["servers"]]
            rest = api.get(page["servers_links"][0]["href"].removeprefix(api.url)).json()
            seen += [server["name"] for server in rest["servers"]]
            assert seen == whole
            assert "servers_links" not in rest
    assert names(name="node-[12]$", sort_key="display_name", sort_dir="asc") == ["node-1", "node-2"]
    assert names(name="OTHER") == []
    assert names(name="er.ho") == ["other.host"]
    assert names(name="er.h.*") == ["other.host"]
    assert len(names(status="ACTIVE")) == 6
    assert names(status="BUILD") == []
    assert names(status="PAUSED") == []
    assert api.at("2.37").get(f"{C}/servers?status=nonsense").json()["servers"] == []
    assert names(display_name="OTHER") == []
    assert names(display_name="other") == ["other.host"]
    assert api.at("2.74").get(f"{C}/servers?sort_key=vcpus").ok
    assert api.user("sorter").get(f"{C}/servers?sort_key=host").status_code == 403
    assert names(host="no-such-host") == []
    assert len(names(**{"changes-since": "2020-01-01T00:00:00Z"})) >= 6
    assert names(**{"changes-since": "2120-01-01T00:00:00Z"}) == []
    assert api.get(f"{C}/servers", params={"limit": 1000}).ok
    for query in (
        {"limit": "-1"},
        {"limit": "x"},
        {"marker": "nothing"},
        {"sort_key": "password"},
        {"sort_dir": "up"},
        {"name": "(["},
        {"changes-since": "yesterday"},
        {"deleted": "maybe"},
        {"colour": "red"},
        {"status": "nonsense"},
        {"sort_key": "vcpus"},
        {"metadata": "k"},
        {"changes-since": "2026-01-02T00:00:00Z", "changes-before": "2026-01-01T00:00:00Z"},
    ):
        response = api.get(f"{C}/servers", params=query)
        assert response.status_code == 400, (query, response.text)
        assert response.json()["badRequest"]["message"]


def test_deleted_servers_are_shown_to_operators_who_ask(api, create):
    alice = api.user("deleter")
    server_id = create(alice)["server"]["id"]
    alice.delete(f"{C}/servers/{server_id}")
    wait(lambda: alice.get(f"{C}/servers/{server_id}").status_code == 404)
    query = {"deleted": "true", "all_tenants": "1", "project_id": "deleter"}
    (shown,) = api.get(f"{C}/servers/detail", params=query).json()["servers"]
    assert (shown["id"], shown["status"], shown["OS-EXT-STS:vm_state"]) == (server_id, "DELETED", "deleted")
    assert shown["OS-SRV-USG:terminated_at"]
    assert alice.get(f"{C}/servers", params={"status": "deleted"}).status_code == 403


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": ""}, "server.name"),
        ({"name": 7}, "server.name"),
        ({"name": "x" * 256}, "server.name"),
        ({"flavorRef": "no-such-flavor"}, "no-such-flavor"),
        ({"imageRef": "6c1a7e88-6d5b-4d6b-8f0a-6a2b1f6f2c11"}, "imageRef"),
        ({"networks": [{"uuid": "6c1a7e88-6d5b-4d6b-8f0a-6a2b1f6f2c11"}]}, "6c1a7e88"),
        ({"networks": "some"}, "server.networks"),
        ({"networks": None}, "server.networks"),
        ({"min_count": 3, "max_count": 2}, "min_count"),
        ({"min_count": 0}, "min_count"),
        ({"max_count": 10**9 - 1}, "max_count"),
        ({"user_data": "not base64!"}, "user_data"),
        ({"metadata": {"k": "v" * 256}}, "server.metadata.k"),
        ({"metadata": {"/": "v"}}, "server.metadata"),
        ({"key_name": "mine"}, "key_name"),
        ({"block_device_mapping_v2": [{"source_type": "volume", "boot_index": 0, "uuid": "x"}]}, "Block Device"),
        ({"host": "no-such-host"}, "no-such-host"),
        ({"hypervisor_hostname": "no-such-node"}, "no-such-node"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_create_says_what_and_where_and_changes_nothing(api, flavor, change, where):
    before = api.get(f"{C}/servers?all_tenants=1").json()
    body = {"server": {"name": "one", "flavorRef": flavor, "networks": "none"} | change}
    response = api.post(f"{C}/servers", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["badRequest"]
    assert error["code"] == 400
    assert where in error["message"]
    assert api.get(f"{C}/servers?all_tenants=1").json() == before


def test_an_operator_chooses_the_host(api, create):
    server_id = create(host="sim-host")["server"]["id"]
    assert active(api, server_id)["OS-EXT-SRV-ATTR:host"] == "sim-host"
    server_id = create(availability_zone="nova:sim-host")["server"]["id"]
    assert active(api, server_id)["OS-EXT-SRV-ATTR:host"] == "sim-host"
    user = api.user("alice")
    body = {"server": {"name": "one", "flavorRef": "x", "networks": "none", "host": "sim-host"}}
    assert user.post(f"{C}/servers", json=body).status_code == 403


def test_what_other_services_would_do_is_answered_as_where_nova_finds_nothing_and_never_with_a_crash(api, create):
    path = f"{C}/servers/{create()['server']['id']}"
    for action, arguments, minor, status, why in (
        ("restore", None, 96, 409, "while it is in vm_state"),
        ("changePassword", {"adminPass": "x"}, 96, 409, "no QEMU agent"),
        ("changePassword", {}, 96, 400, "adminPass"),
        ("addSecurityGroup", {"name": "web"}, 96, 404, "Security group web not found"),
        ("removeSecurityGroup", {"name": "{uuid.x}"}, 96, 404, "Security group {uuid.x} not found"),
        ("addFloatingIp", {"address": "192.0.2.1"}, 43, 404, "floating IP not found"),
        ("addFloatingIp", {"address": "192.0.2.1"}, 44, 404, "is not supported on this method"),
        ("addFixedIp", {"networkId": 1}, 43, 400, "networkId"),
        ("addFixedIp", {"networkId": "net"}, 43, 400, "for network: net"),
        ("resetNetwork", None, 96, 410, "no more"),
    ):
        refused = api.at(f"2.{minor}").post(f"{path}/action", json={action: arguments})
        ((_, fault),) = refused.json().items()
        assert (refused.status_code, fault["code"]) == (status, status)
        assert why in fault["message"]
    assert api.get(f"{path}/os-server-password").json() == {"password": ""}
    assert api.delete(f"{path}/os-server-password").status_code == 204
    for name in ("os-volumes", "os-snapshots", "os-networks", "os-floating-ips", "os-security-groups", "images"):
        for answer in (api.get(f"{C}/{name}"), api.at("2.1").post(f"{C}/{name}", json={}), api.delete(f"{C}/{name}/1")):
            assert (answer.status_code, answer.json()["itemNotFound"]["code"]) == (404, 404)


def test_who_may_only_look_is_refused_whatever_would_be_changed_by_another_service(api, create):
    reader = api.user("looker", roles="reader")
    path = f"{C}/servers/{create(api.user('looker'))['server']['id']}"
    for action, arguments in (
        ("changePassword", {"adminPass": "x"}),
        ("addSecurityGroup", {"name": "x"}),
        ("restore", None),
    ):
        assert reader.post(f"{path}/action", json={action: arguments}).status_code == 403
    for part in ("os-interface", "os-volume_attachments"):
        answers = (
            reader.get(f"{path}/{part}"),
            reader.post(f"{path}/{part}", json={}),
            reader.delete(f"{path}/{part}/x"),
        )
        assert [answer.status_code for answer in answers] == [200, 403, 403]


def test_volumes_of_a_server_are_none_in_each_page_and_pages_are_asked_for_by_numbers(api, create):
    path = f"{C}/servers/{create()['server']['id']}/os-volume_attachments"
    assert api.get(f"{path}?limit=1&offset=2").json() == {"volumeAttachments": []}
    for wrong in ("limit=x", "limit=-1", "offset=-1"):
        assert api.get(f"{path}?{wrong}").status_code == 400, wrong
    assert [api.at(version).get(f"{path}?what=1").status_code for version in ("2.74", "2.75")] == [200, 400]


def test_network_information_is_injected_for_operators_into_servers_that_are_there_which_does_nothing(api, create):
    user = api.user("injector")
    path = f"{C}/servers/{create(user)['server']['id']}/action"
    assert [who.post(path, json={"injectNetworkInfo": None}).status_code for who in (api, user)] == [202, 403]
    nowhere = f"{C}/servers/{uuid.uuid4()}/action"
    assert api.post(nowhere, json={"injectNetworkInfo": None}).status_code == 404


def test_a_guest_is_told_to_write_a_crash_dump_from_2_17_on_while_anything_of_it_runs(api, create):
    server_id = create()["server"]["id"]
    path = f"{C}/servers/{server_id}/action"
    dump = {"trigger_crash_dump": None}
    wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")
    assert api.at("2.16").post(path, json=dump).status_code == 404
    assert api.at("2.17").post(path, json={"trigger_crash_dump": {}}).status_code == 400
    assert api.at("2.17").post(path, json=dump).status_code == 202
    console = api.post(path, json={"os-getConsoleOutput": {}}).json()["output"]
    assert console.count("an NMI was injected") == 1
    of_server = f"{C}/servers/{server_id}/os-instance-actions"
    action = api.get(of_server).json()["instanceActions"][0]
    told = api.get(f"{of_server}/{action['request_id']}").json()["instanceAction"]
    assert told["action"] == "trigger_crash_dump"
    assert [(event["event"], event["result"]) for event in told["events"]] == [
        ("compute_trigger_crash_dump", "Success")
    ]
    shown = api.get(f"{C}/servers/{server_id}").json()["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert api.post(path, json={"os-stop": None}).status_code == 202
    wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "SHUTOFF")
    refused = api.at("2.17").post(path, json=dump)
    assert (refused.status_code, "in vm_state stopped" in refused.text) == (409, True)
    assert api.at("2.17").post(f"{C}/servers/{uuid.uuid4()}/action", json=dump).status_code == 404


def test_actions_that_nobody_knows_are_refused(api, create):
    server_id = create()["server"]["id"]
    path = f"{C}/servers/{server_id}/action"
    assert api.post(path, json={"dance": {}}).status_code == 400
    assert api.post(path, json={"reboot": {}, "pause": None}).status_code == 400
    assert api.post(path, json={}).status_code == 400
    assert api.post(path, json={"forceDelete": None}).status_code == 202
    wait(lambda: api.get(f"{C}/servers/{server_id}").status_code == 404)
