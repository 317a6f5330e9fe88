# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Start, stop, reboot, pause, suspend, lock: what may be ordered when, what becomes of it, and what is written down."""

from __future__ import annotations

from typing import Any

import pytest
from patience import wait

C = "/compute/v2.1"
LATEST, OLDEST = ({"OpenStack-API-Version": f"compute 2.{minor}"} for minor in (96, 1))
ORDERS: dict[str, Any] = {
    "os-start": None,
    "os-stop": None,
    "pause": None,
    "unpause": None,
    "suspend": None,
    "resume": None,
    "soft": {"type": "SOFT"},
    "hard": {"type": "HARD"},
}
# What each status allows, and which status it leads to.
ALLOWED = {
    "ACTIVE": {"os-stop": "SHUTOFF", "pause": "PAUSED", "suspend": "SUSPENDED", "soft": "ACTIVE", "hard": "ACTIVE"},
    "SHUTOFF": {"os-start": "ACTIVE", "hard": "ACTIVE"},
    "PAUSED": {"unpause": "ACTIVE", "hard": "ACTIVE"},
    "SUSPENDED": {"resume": "ACTIVE", "hard": "ACTIVE"},
}


@pytest.fixture
def server(api, create) -> str:
    server_id: str = create()["server"]["id"]
    settled(api, server_id, "ACTIVE")
    return server_id


def show(api, server_id: str, minor: int = 96) -> dict[str, Any]:
    response = api.get(f"{C}/servers/{server_id}", headers={"OpenStack-API-Version": f"compute 2.{minor}"})
    assert response.status_code == 200, response.text
    return response.json()["server"]


def settled(api, server_id: str, status: str) -> dict[str, Any]:
    """Return a server once it has a status and nothing is being done about it."""

    def there() -> dict[str, Any] | None:
        server = show(api, server_id)
        return server if (server["status"], server["OS-EXT-STS:task_state"]) == (status, None) else None

    return wait(there)


def act(who, server_id: str, action: str, argument: Any = None, minor: int = 96) -> Any:
    headers = {"OpenStack-API-Version": f"compute 2.{minor}"}
    return who.post(f"{C}/servers/{server_id}/action", json={action: argument}, headers=headers)


def order(who, server_id: str, name: str) -> Any:
    return act(who, server_id, "reboot" if name in ("soft", "hard") else name, ORDERS[name])


def actions(api, server_id: str, **headers: str) -> list[dict[str, Any]]:
    response = api.get(f"{C}/servers/{server_id}/os-instance-actions", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()["instanceActions"]


def test_each_status_allows_what_makes_sense_in_it_and_nothing_else(api, server):
    def obey(name: str, leads_to: str) -> None:
        assert order(api, server, name).status_code == 202, name
        settled(api, server, leads_to)

    for status, way_there in (("ACTIVE", None), ("SHUTOFF", "os-stop"), ("PAUSED", "pause"), ("SUSPENDED", "suspend")):
        for name in [*ORDERS.keys() - ALLOWED[status].keys(), *ALLOWED[status]]:
            if way_there and show(api, server)["status"] == "ACTIVE":
                obey(way_there, status)
            if name in ALLOWED[status]:
                obey(name, ALLOWED[status][name])
                if status == "ACTIVE" != ALLOWED[status][name]:
                    obey("hard", "ACTIVE")
            else:
                refused = order(api, server, name)
                assert refused.status_code == 409, (status, name)
                assert "while it is in vm_state" in refused.json()["conflictingRequest"]["message"]


def test_a_server_that_was_made_without_an_image_is_rescued_by_one_that_is_named_or_not_at_all(api, server):
    for argument, why in (
        (None, "name one in rescue_image_ref"),
        ({"rescue_image_ref": "cccccccc-0000-4000-8000-000000000001"}, "no image service"),
        ({"rescue_image_ref": "x"}, "rescue_image_ref"),
        ({"adminPass": "x" * 256}, "adminPass"),
    ):
        refused = act(api, server, "rescue", argument)
        assert (refused.status_code, why in refused.text) == (400, True), refused.text
    refused = act(api, server, "unrescue")
    assert refused.status_code == 409
    assert "Cannot 'unrescue'" in refused.text
    for action, argument in (
        ("createImage", {"name": "picture"}),
        ("createBackup", {"name": "picture", "backup_type": "daily", "rotation": 1}),
        ("shelve", None),
    ):
        refused = act(api, server, action, argument)
        assert (refused.status_code, "no image service" in refused.text) == (400, True), refused.text
    assert show(api, server)["status"] == "ACTIVE"


def test_a_server_without_a_disk_is_shelved_without_an_image(api, create):
    name = "diskless"
    made = {"name": name, "vcpus": 1, "ram": 64, "disk": 0, "id": name}
    assert api.post(f"{C}/flavors", json={"flavor": made}).status_code == 200
    uuid = create(flavorRef=name)["server"]["id"]
    settled(api, uuid, "ACTIVE")
    refused = act(api, uuid, "createImage", {"name": "picture"})
    assert (refused.status_code, "has no disk" in refused.text) == (400, True)
    assert act(api, uuid, "shelve").status_code == 202
    shown = settled(api, uuid, "SHELVED_OFFLOADED")
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-STS:vm_state"]) == (None, "shelved_offloaded")
    assert api.get(f"/placement/allocations/{uuid}").json()["allocations"] == {}
    assert [one["id"] for one in api.get(f"{C}/servers?status=SHELVED_OFFLOADED").json()["servers"]] == [uuid]
    for name_, argument in (("shelveOffload", None), ("os-start", None), ("reboot", {"type": "HARD"})):
        assert act(api, uuid, name_, argument).status_code == 409, name_
    assert act(api, uuid, "unshelve").status_code == 202
    settled(api, uuid, "ACTIVE")
    assert [one["action"] for one in actions(api, uuid)] == ["unshelve", "shelve", "create"]
    assert act(api, uuid, "unshelve").status_code == 409
    api.delete(f"{C}/flavors/{name}")


def test_a_server_that_was_never_active_takes_no_orders(api, create):
    servers = [create(name=f"filler-{number}")["server"]["id"] for number in range(9)]  # one more than there are vGPUs
    failed = wait(lambda: [server for server in servers if show(api, server)["status"] == "ERROR"])[0]
    refused = order(api, failed, "hard")
    assert refused.status_code == 409
    assert "never been active" in refused.json()["conflictingRequest"]["message"]
    ((created,), path) = actions(api, failed), f"{C}/servers/{failed}/os-instance-actions"
    (event,) = api.get(f"{path}/{created['request_id']}", headers=LATEST).json()["instanceAction"]["events"]
    assert (created["message"], event["result"]) == ("Error", "Error")
    assert "No valid host" in event["details"]


def test_what_was_done_is_written_down_with_how_it_went(api, server):
    request_id = order(api, server, "os-stop").headers["x-openstack-request-id"]
    settled(api, server, "SHUTOFF")
    listed = actions(api, server, **LATEST)
    assert [action["action"] for action in listed] == ["stop", "create"]
    assert (listed[0]["request_id"], listed[0]["instance_uuid"], listed[0]["message"]) == (request_id, server, None)

    path = f"{C}/servers/{server}/os-instance-actions"
    (event,) = api.get(f"{path}/{request_id}", headers=LATEST).json()["instanceAction"]["events"]
    assert (event["event"], event["result"], event["host"]) == ("compute_stop_instance", "Success", "sim-host")
    assert event["finish_time"] >= event["start_time"]
    assert "updated_at" not in actions(api, server, **OLDEST)[0]
    assert api.get(f"{path}/req-unknown").status_code == 404


def test_what_was_done_is_listed_page_by_page(api, server):
    for name in ("os-stop", "os-start"):
        order(api, server, name)
        wait(lambda: show(api, server)["OS-EXT-STS:task_state"] is None)
    headers = {"OpenStack-API-Version": "compute 2.58"}
    path, seen = f"{C}/servers/{server}/os-instance-actions?limit=2", []
    page = api.get(path, headers=headers).json()
    seen += [action["action"] for action in page["instanceActions"]]
    (link,) = page["links"]
    page = api.get(link["href"][link["href"].index(C) :], headers=headers).json()
    seen += [action["action"] for action in page["instanceActions"]]
    assert seen == ["start", "stop", "create"]
    assert api.get(f"{C}/servers/{server}/os-instance-actions?marker=req-x", headers=headers).status_code == 400


def test_a_locked_server_is_changed_by_administrators_only(api, create):
    user = api.user("locker")
    mine = create(who=user)["server"]["id"]
    settled(user, mine, "ACTIVE")
    assert act(user, mine, "lock", {"locked_reason": "do not touch"}, minor=73).status_code == 202
    shown = show(user, mine)
    assert (shown["locked"], shown["locked_reason"]) == (True, "do not touch")
    for refused in (order(user, mine, "os-stop"), user.delete(f"{C}/servers/{mine}"), act(user, mine, "forceDelete")):
        assert refused.status_code == 409
        assert "is locked" in refused.json()["conflictingRequest"]["message"]
    assert order(api, mine, "os-stop").status_code == 202
    settled(api, mine, "SHUTOFF")
    assert act(user, mine, "unlock").status_code == 202
    assert order(user, mine, "os-start").status_code == 202

    assert act(api, mine, "lock").status_code == 202
    assert act(user, mine, "unlock").status_code == 403
    assert act(api, mine, "unlock").status_code == 202
    assert show(user, mine)["locked"] is False


def test_a_reset_state_holds_until_the_server_obeys_an_order(api, server):
    assert act(api, server, "os-resetState", {"state": "error"}).status_code == 202
    assert show(api, server)["status"] == "ERROR"
    assert act(api, server, "os-resetState", {"state": "broken"}).status_code == 400
    assert order(api, server, "hard").status_code == 202
    settled(api, server, "ACTIVE")
    assert [action["action"] for action in actions(api, server)] == ["reboot", "resetState", "create"]


def test_a_server_to_be_deleted_takes_no_orders_and_its_actions_stay_readable(api, server):
    api.delete(f"{C}/servers/{server}")
    wait(lambda: api.get(f"{C}/servers/{server}").status_code == 404)
    assert order(api, server, "os-stop").status_code == 404
    assert [action["action"] for action in actions(api, server, **LATEST)] == ["delete", "create"]
    assert api.get(f"{C}/servers/{server}/os-instance-actions", headers=OLDEST).status_code == 404
