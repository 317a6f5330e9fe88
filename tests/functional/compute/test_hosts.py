# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts as older versions of the API have them, hosts that are forgotten, and what is seen of a server on its host."""

from __future__ import annotations

from typing import Any

import pytest
from patience import wait

from accelsched import wire

C = "/compute/v2.1"
NOT_YET, SINCE = ({"OpenStack-API-Version": f"compute 2.{minor}"} for minor in (52, 53))
LATEST = {"OpenStack-API-Version": "compute 2.96"}


@pytest.fixture
def server(api, create) -> str:
    server_id: str = create()["server"]["id"]
    wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")
    return server_id


def service(api) -> dict[str, Any]:
    (found,) = api.get(f"{C}/os-services", headers=LATEST).json()["services"]
    return found


def test_hypervisors_are_searched_and_listed_with_their_servers_until_2_53(api, server):
    path = f"{C}/os-hypervisors/sim/"
    (found,) = api.get(path + "search", headers=NOT_YET).json()["hypervisors"]
    assert (found["hypervisor_hostname"], found["state"], found["status"]) == ("sim-host", "up", "enabled")
    (found,) = api.get(path + "servers", headers=NOT_YET).json()["hypervisors"]
    assert [one["uuid"] for one in found["servers"]] == [server]
    for what in ("search", "servers"):
        assert api.get(path + what, headers=SINCE).status_code == 404
        assert api.get(f"{C}/os-hypervisors/other/{what}", headers=NOT_YET).status_code == 404


def test_hypervisors_that_match_a_pattern_come_in_one_answer(api):
    matching = f"{C}/os-hypervisors?hypervisor_hostname_pattern=sim"
    assert len(api.get(matching, headers=SINCE).json()["hypervisors"]) == 1
    for page in ("limit=1", "marker=x"):
        assert api.get(f"{matching}&{page}", headers=SINCE).status_code == 400


def test_services_are_changed_by_host_and_binary_until_2_53(api):
    body = {"host": "sim-host", "binary": "nova-compute"}

    def put(action: str, headers: dict[str, str] = NOT_YET, **more: Any) -> Any:
        return api.put(f"{C}/os-services/{action}", json={**body, **more}, headers=headers)

    answer = put("disable-log-reason", disabled_reason="dust")
    assert answer.json()["service"] == {**body, "disabled_reason": "dust", "status": "disabled"}
    assert (service(api)["status"], service(api)["disabled_reason"]) == ("disabled", "dust")
    assert put("enable").json()["service"] == {**body, "status": "enabled"}
    assert put("disable").status_code == 200
    assert (service(api)["status"], service(api)["disabled_reason"]) == ("disabled", None)
    assert put("enable").status_code == 200
    assert put("force-down", forced_down=True).json()["service"] == {**body, "forced_down": True}
    assert service(api)["state"] == "down"
    assert put("force-down", forced_down=False).status_code == 200
    assert service(api)["state"] == "up"
    for refused, status in (
        (put("force-down", headers={"OpenStack-API-Version": "compute 2.10"}, forced_down=True), 404),
        (put("burn"), 404),
        (put("enable", host="nowhere"), 404),
        (put("enable", binary="nova-scheduler"), 404),
        (put("disable-log-reason"), 400),
        (put("enable", forced_down=True), 400),
    ):
        assert refused.status_code == status, refused.text


def test_a_host_with_servers_is_not_forgotten_and_one_that_is_still_there_comes_back(api, server):
    before = service(api)
    path = f"{C}/os-services/"
    refused = api.delete(path + before["id"], headers=LATEST)
    assert (refused.status_code, "hosting instances" in refused.text) == (409, True)
    assert api.delete(path + "1", headers=LATEST).status_code == 400
    assert api.delete(path + before["id"], headers=NOT_YET).status_code == 400
    assert api.delete(path + "999999", headers=NOT_YET).status_code == 404

    api.delete(f"{C}/servers/{server}")
    wait(lambda: api.get(f"{C}/servers/{server}").status_code == 404)
    assert api.delete(path + before["id"], headers=LATEST).status_code == 204
    wait(lambda: api.get(f"{C}/os-services", headers=LATEST).json()["services"])
    assert service(api)["id"] != before["id"]
    names = [one["name"] for one in api.get("/placement/resource_providers").json()["resource_providers"]]
    assert len(names) == len(set(names)) > 1


def test_a_servers_diagnostics_are_told_while_it_runs(api, server):
    path = f"{C}/servers/{server}/diagnostics"
    told = api.get(path, headers=LATEST).json()
    assert (told["state"], told["driver"], told["num_cpus"], told["nic_details"]) == ("running", "simulated", 0, [])
    assert api.get(path, headers={"OpenStack-API-Version": "compute 2.47"}).json() == {"memory": 0}
    api.post(f"{C}/servers/{server}/action", json={"os-stop": None})
    wait(lambda: api.get(f"{C}/servers/{server}").json()["server"]["status"] == "SHUTOFF")
    refused = api.get(path, headers=LATEST)
    assert (refused.status_code, "vm_state stopped" in refused.text) == (409, True)
    assert api.user("curious").get(path).status_code in (403, 404)


def test_a_servers_numa_nodes_are_told_and_where_they_are_to_operators_only(api, create, flavor):
    path = f"{C}/flavors/{flavor}/os-extra_specs"
    assert api.post(path, json={"extra_specs": {"hw:numa_nodes": "1"}}).status_code == 200
    user = api.user("placed")
    uuid = create(who=user)["server"]["id"]
    wait(lambda: user.get(f"{C}/servers/{uuid}").json()["server"]["status"] == "ACTIVE")
    path = f"{C}/servers/{uuid}/topology"
    told = api.get(path, headers=LATEST).json()
    (node,) = told["nodes"]
    assert (node["vcpu_set"], node["memory_mb"], node["host_node"] in (0, 1)) == ([0], 64, True)
    (node,) = user.get(path, headers=LATEST).json()["nodes"]
    assert node.keys() == {"vcpu_set", "memory_mb", "siblings"}
    assert api.get(path, headers={"OpenStack-API-Version": "compute 2.77"}).status_code == 404


def test_a_server_without_numa_nodes_has_none(api, server):
    told = api.get(f"{C}/servers/{server}/topology", headers=LATEST).json()
    assert told == {"nodes": [], "pagesize_kb": None}


def test_consoles_are_refused_as_where_no_proxy_is_set_up(api, server):
    path = f"{C}/servers/{server}/"
    body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    for answer in (
        api.post(path + "remote-consoles", json=body, headers=LATEST),
        api.post(path + "action", json={"os-getVNCConsole": {"type": "novnc"}}, headers=NOT_YET),
    ):
        assert answer.status_code == 400
        assert "Unavailable console type novnc" in answer.json()["badRequest"]["message"]
    body = {"remote_console": {"protocol": "smoke", "type": "novnc"}}
    assert api.post(path + "remote-consoles", json=body, headers=LATEST).status_code == 400
    assert api.post(path + "action", json={"os-getVNCConsole": []}).status_code == 400


def test_agents_are_listed_with_the_version_that_they_understand(api):
    told = api.get("/v1/agents").json()
    (agent,) = told["agents"]
    assert (agent["host"], agent["state"], agent["outdated"], agent["simulated"]) == ("sim-host", "up", False, True)
    assert agent["rpc_version"] == wire.AGENT_VERSION
    assert told["next_marker"] is None
    assert api.get("/v1/agents?host=other").json()["agents"] == []
    assert api.get("/v1/agents?marker=sim-host").json()["agents"] == []
    assert api.get("/v1/agents?state=up").status_code == 400
    assert api.user("p").get("/v1/agents").status_code == 403
