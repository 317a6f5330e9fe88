# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What servers used, what other services tell of them, and what hosts carry."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from patience import wait

C = "/compute/v2.1"


def active(who: Any, server_id: str) -> None:
    wait(lambda: who.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")


@pytest.fixture
def project() -> str:
    return f"usage-{uuid.uuid4().hex[:8]}"


def test_usage_is_that_of_servers_there_in_the_period(api, create, project):
    user = api.user(project)
    kept, gone = (create(who=user, name=name)["server"]["id"] for name in ("kept", "gone"))
    for server in (kept, gone):
        active(user, server)
    user.delete(f"{C}/servers/{gone}")
    wait(lambda: user.get(f"{C}/servers/{gone}").status_code == 404)
    path = f"{C}/os-simple-tenant-usage/{project}"
    used = user.get(f"{path}?start=2020-01-01T00:00:00").json()["tenant_usage"]
    assert {one["instance_id"]: one["state"] for one in used["server_usages"]} == {kept: "active", gone: "terminated"}
    assert used["total_memory_mb_usage"] == pytest.approx(64 * used["total_hours"])
    assert 0 < used["total_hours"] < 1
    page = user.get(f"{path}?start=2020-01-01T00:00:00&limit=1").json()
    rest = user.get(page["tenant_usage_links"][0]["href"].removeprefix(api.url)).json()
    pages = [one["instance_id"] for part in (page, rest) for one in part["tenant_usage"]["server_usages"]]
    assert pages == [kept, gone]
    assert user.get(f"{path}?start=2020-01-01T00:00:00&end=2020-02-01T00:00:00").json() == {"tenant_usage": {}}
    listed = api.get(f"{C}/os-simple-tenant-usage?start=2020-01-01T00:00:00&detailed=1").json()["tenant_usages"]
    assert project in {usage["tenant_id"] for usage in listed}
    late = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
    for query in ("start=yesterday", f"start={late}", "start=2020-01-02T00:00:00&end=2020-01-01T00:00:00"):
        assert user.get(f"{path}?{query}").status_code == 400
    assert user.get(f"{C}/os-simple-tenant-usage").status_code == 403
    assert api.get(f"{C}/os-simple-tenant-usage").status_code == 200  # openstacksdk names no period
    assert api.user("stranger").get(path).status_code == 403


def test_events_are_answered_one_by_one(api, create):
    server_id = create()["server"]["id"]
    active(api, server_id)
    path, known = f"{C}/os-server-external-events", {"server_uuid": server_id, "name": "network-changed"}
    unknown = {"server_uuid": str(uuid.uuid4()), "name": "network-vif-plugged", "tag": "x"}

    def send(*events: dict[str, Any]) -> Any:
        return api.post(path, json={"events": list(events)})

    done = send(known)
    assert (done.status_code, done.json()) == (200, {"events": [{**known, "status": "completed", "code": 200}]})
    mixed = send(known, unknown, {**known, "name": "volume-extended"})
    assert (mixed.status_code, [event["code"] for event in mixed.json()["events"]]) == (207, [200, 404, 400])
    assert send(unknown).status_code == 404
    assert send().status_code == send({**known, "name": "rain"}).status_code == 400
    old = api.at("2.50").post(path, json={"events": [{**known, "name": "volume-extended", "tag": "x"}]})
    assert old.status_code == 400
    assert api.user("alice").post(path, json={"events": [known]}).status_code == 403


def test_hypervisors_are_shown_with_their_servers_and_added_up(api, create):
    server_id = create()["server"]["id"]
    active(api, server_id)
    (brief,) = api.get(f"{C}/os-hypervisors?with_servers=true").json()["hypervisors"]
    assert server_id in [server["uuid"] for server in brief["servers"]]
    shown = api.get(f"{C}/os-hypervisors/{brief['id']}?with_servers=true").json()["hypervisor"]
    assert shown["servers"] == brief["servers"]
    assert "servers" not in api.get(f"{C}/os-hypervisors/{brief['id']}").json()["hypervisor"]
    sums = api.at("2.87").get(f"{C}/os-hypervisors/statistics").json()["hypervisor_statistics"]
    old = api.at("2.87").get(f"{C}/os-hypervisors/{brief['id']}").json()["hypervisor"]
    assert sums["count"] == 1
    assert sums["running_vms"] == len(brief["servers"])
    assert {key: old[key] for key in ("vcpus", "memory_mb", "local_gb")}.items() <= sums.items()
    assert api.get(f"{C}/os-hypervisors/statistics").status_code == 404
    assert api.get(f"{C}/os-migrations").json() == {"migrations": []}
