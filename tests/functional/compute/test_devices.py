# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/devices``: what operators see of devices, and how they close one."""

from __future__ import annotations

from typing import Any

import pytest
from patience import wait

D = "/v1/devices"
C = "/compute/v2.1"


def gpus(api: Any, **query: str) -> list[dict[str, Any]]:
    answer = api.get(D, params=query)
    assert answer.status_code == 200, answer.text
    return [device for device in answer.json()["devices"] if "VGPU" in device["inventories"]]


def test_devices_are_listed_in_pages_and_closed_to_new_servers_until_they_are_opened_again(api, create):
    first, second = gpus(api, host="sim-host")
    assert (first["host"], first["status"], first["consumers"]) == ("sim-host", "enabled", [])
    assert first["inventories"]["VGPU"] == {"total": 4, "reserved": 0, "used": 0}
    page = api.get(D, params={"limit": "1"}).json()
    assert [device["uuid"] for device in page["devices"]] == [page["next_marker"]]
    rest = api.get(D, params={"marker": page["next_marker"]}).json()
    assert page["next_marker"] not in [device["uuid"] for device in rest["devices"]]
    assert rest["next_marker"] is None

    for device in (first, second):
        closed = api.patch(f"{D}/{device['uuid']}", json={"disabled": True})
        assert closed.json()["device"]["status"] == "disabled", closed.text
    try:
        assert gpus(api, status="enabled") == []
        assert len(gpus(api, status="disabled")) == 2
        query = {"resources": "VGPU:1"}
        headers = {"OpenStack-API-Version": "placement 1.39"}
        asked = api.get("/placement/allocation_candidates", params=query, headers=headers).json()
        assert asked["allocation_requests"] == []
        server = create()["server"]["id"]
        wait(lambda: api.get(f"{C}/servers/{server}").json()["server"]["status"] == "ERROR")
    finally:
        for device in (first, second):
            opened = api.patch(f"{D}/{device['uuid']}", json={"disabled": False})
            assert opened.json()["device"] == {**device, "consumers": []}
    server = create()["server"]["id"]
    wait(lambda: api.get(f"{C}/servers/{server}").json()["server"]["status"] == "ACTIVE")
    assert [device["consumers"] for device in gpus(api)].count([server]) == 1
    text = api.get("/metrics").text
    assert 'accelsched_devices{status="lost"} 0.0' in text
    assert "accelsched_device_faults 0.0" in text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "?status=broken", None, 400),
        ("GET", "?limit=0", None, 400),
        ("GET", "?colour=red", None, 400),
        ("GET", "?marker=nowhere", None, 400),
        ("GET", "?host=nowhere", None, 404),
        ("GET", "/nowhere", None, 404),
        ("PATCH", "/nowhere", {"disabled": True}, 404),
        ("PATCH", "/nowhere", {"disabled": "yes"}, 400),
        ("PATCH", "/nowhere", {}, 400),
    ],
)
def test_what_makes_no_sense_is_refused(api, method, path, body, status):
    answer = api.request(method, D + path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["status"] == status
