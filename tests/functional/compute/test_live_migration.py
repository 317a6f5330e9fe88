# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that go from one simulated host to another while they run, with agents that really do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import two_hosts
from deployments import Api
from patience import wait
from two_hosts import C, act, settled, show, vgpus

OTHER = {"one": "two", "two": "one"}
LIVE = {"host": None, "block_migration": "auto"}


@pytest.fixture(scope="module")
def fleet(start_service: Any, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A build and a migration take a second."""
    home = tmp_path_factory.mktemp("live")
    with two_hosts.fleet(start_service, broker_url, home, simulated_build_seconds=1) as api:
        yield api


def refusal(api: Api, uuid: str, argument: Any) -> str:
    refused = api.post(f"{C}/servers/{uuid}/action", json={"os-migrateLive": argument})
    assert refused.status_code == 400
    message: str = refused.json()["badRequest"]["message"]
    return message


def under_way(api: Api, uuid: str) -> list[dict[str, Any]]:
    return api.get(f"{C}/servers/{uuid}/migrations").json()["migrations"]


def running(api: Api, uuid: str) -> dict[str, Any]:
    """Return a server's live migration once its source has begun it."""
    wait(lambda: [it["status"] for it in under_way(api, uuid)] == ["running"], told=lambda: under_way(api, uuid))
    return under_way(api, uuid)[0]


def last(api: Api, uuid: str) -> dict[str, Any]:
    return api.get(f"{C}/os-migrations?instance_uuid={uuid}").json()["migrations"][0]


def event(api: Api, uuid: str) -> tuple[str, str]:
    """Return the name and the result of what was asked for last."""
    actions = api.get(f"{C}/servers/{uuid}/os-instance-actions").json()["instanceActions"]
    request_id = actions[0]["request_id"]
    told = api.get(f"{C}/servers/{uuid}/os-instance-actions/{request_id}").json()["instanceAction"]
    return told["action"], told["events"][0]["result"]


@pytest.fixture
def server(fleet: Api) -> Iterator[str]:
    body = {"server": {"name": "s", "flavorRef": "1", "networks": "none"}}
    uuid: str = fleet.post(f"{C}/servers", json=body).json()["server"]["id"]
    settled(fleet, uuid, "ACTIVE")
    yield uuid
    fleet.delete(f"{C}/servers/{uuid}")
    wait(lambda: vgpus(fleet) == {"one": 0, "two": 0}, told=lambda: vgpus(fleet))


def test_a_server_goes_to_another_host_with_a_device_there_and_what_it_had_is_free(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    assert act(fleet, server, "os-migrateLive", LIVE) == 202
    migration = running(fleet, server)
    assert (show(fleet, server)["status"], show(fleet, server)["OS-EXT-SRV-ATTR:host"]) == ("MIGRATING", source)
    assert vgpus(fleet) == {"one": 1, "two": 1}
    wait(lambda: under_way(fleet, server)[0]["memory_total_bytes"] == 64 << 20)
    (link, _) = last(fleet, server)["links"]
    assert fleet.get(link["href"].removeprefix(fleet.url)).json()["migration"]["id"] == migration["id"]
    assert act(fleet, server, "os-stop") == 409
    assert act(fleet, server, "migrate") == 409
    assert act(fleet, server, "os-migrateLive", LIVE) == 409
    assert settled(fleet, server, "ACTIVE") == OTHER[source]
    wait(lambda: vgpus(fleet) == {source: 0, OTHER[source]: 1}, told=lambda: vgpus(fleet))
    told = [last(fleet, server)[key] for key in ("migration_type", "status", "source_compute", "dest_compute")]
    assert told == ["live-migration", "completed", source, OTHER[source]]
    assert under_way(fleet, server) == []
    assert "links" not in last(fleet, server)
    assert fleet.get(f"{C}/servers/{server}/migrations/{migration['id']}").status_code == 404
    assert event(fleet, server) == ("live-migration", "Success")
    console = fleet.post(f"{C}/servers/{server}/action", json={"os-getConsoleOutput": {}}).json()["output"]
    assert f"on simulated host {OTHER[source]}" in console
    # And back, with its host named.
    assert act(fleet, server, "os-migrateLive", {**LIVE, "host": source}) == 202
    assert settled(fleet, server, "ACTIVE") == source


def test_a_server_that_is_paused_is_so_there(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    assert act(fleet, server, "pause") == 202
    settled(fleet, server, "PAUSED")
    assert act(fleet, server, "os-migrateLive", LIVE) == 202
    assert settled(fleet, server, "PAUSED") == OTHER[source]


def test_a_migration_that_is_aborted_leaves_the_server_where_it_was(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    assert act(fleet, server, "os-migrateLive", LIVE) == 202
    of_it = f"{C}/servers/{server}/migrations/{running(fleet, server)['id']}"
    assert fleet.get(of_it).json()["migration"]["server_uuid"] == server
    assert fleet.post(f"{of_it}/action", json={"force_complete": None}).status_code == 202
    assert fleet.delete(of_it).status_code == 202
    assert settled(fleet, server, "ACTIVE") == source
    assert last(fleet, server)["status"] == "cancelled"
    wait(lambda: vgpus(fleet) == {source: 1, OTHER[source]: 0}, told=lambda: vgpus(fleet))
    assert fleet.delete(of_it).status_code == 400
    assert fleet.post(f"{of_it}/action", json={"force_complete": None}).status_code == 400
    assert act(fleet, server, "os-stop") == 202
    settled(fleet, server, "SHUTOFF")


def test_a_server_that_is_deleted_on_its_way_leaves_nothing(fleet: Api, server: str) -> None:
    assert act(fleet, server, "os-migrateLive", LIVE) == 202
    running(fleet, server)
    assert fleet.delete(f"{C}/servers/{server}").status_code == 204
    wait(lambda: vgpus(fleet) == {"one": 0, "two": 0}, told=lambda: vgpus(fleet))
    wait(lambda: fleet.get(f"{C}/servers/{server}").status_code == 404)
    assert last(fleet, server)["status"] == "cancelled"


def test_a_server_stays_when_the_host_is_lost_that_it_was_to_go_to(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    (service,) = [it for it in fleet.get(f"{C}/os-services").json()["services"] if it["host"] == OTHER[source]]
    assert act(fleet, server, "os-migrateLive", LIVE) == 202
    running(fleet, server)
    path = f"{C}/os-services/{service['id']}"
    assert fleet.put(path, json={"forced_down": True}).ok
    assert settled(fleet, server, "ACTIVE") == source
    assert fleet.put(path, json={"forced_down": False}).ok
    assert last(fleet, server)["status"] == "error"
    assert event(fleet, server) == ("live-migration", "Error")
    wait(lambda: vgpus(fleet) == {source: 1, OTHER[source]: 0}, told=lambda: vgpus(fleet))


def test_what_makes_no_sense_is_refused_before_anything_happens(fleet: Api, server: str) -> None:
    host = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    assert "to current host" in refusal(fleet, server, {**LIVE, "host": host})
    assert "could not be found" in refusal(fleet, server, {**LIVE, "host": "nowhere"})
    assert "not on shared storage" in refusal(fleet, server, {**LIVE, "block_migration": False})
    assert act(fleet, server, "os-migrateLive", {"host": None}) == 400
    assert act(fleet.user("p"), server, "os-migrateLive", LIVE) == 403
    assert "non-provided destination" in refusal(fleet.at("2.30"), server, {**LIVE, "force": True})
    assert act(fleet, server, "os-migrateLive", {**LIVE, "force": True}) == 400  # not since 2.68
    old = {"host": OTHER[host], "block_migration": False, "disk_over_commit": False}
    assert "not on shared storage" in refusal(fleet.at("2.1"), server, old)
    of_server = f"{C}/servers/{server}/migrations"
    assert fleet.get(of_server).json() == {"migrations": []}
    assert fleet.at("2.22").get(of_server).status_code == 404
    assert fleet.get(f"{of_server}/0").status_code == 404
    assert fleet.delete(f"{of_server}/0").status_code == 404
    assert act(fleet, server, "os-stop") == 202
    settled(fleet, server, "SHUTOFF")
    assert act(fleet, server, "os-migrateLive", LIVE) == 409


def test_earlier_microversions_say_it_their_way(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    old = {"host": OTHER[source], "block_migration": "true", "disk_over_commit": False}
    assert act(fleet.at("2.1"), server, "os-migrateLive", old) == 202
    assert settled(fleet, server, "ACTIVE") == OTHER[source]
    assert act(fleet.at("2.30"), server, "os-migrateLive", {**LIVE, "host": source, "force": True}) == 202
    of_it = f"{C}/servers/{server}/migrations/{running(fleet, server)['id']}"
    assert set(fleet.at("2.23").get(of_it).json()["migration"]).isdisjoint({"uuid", "user_id"})
    assert settled(fleet, server, "ACTIVE") == source
