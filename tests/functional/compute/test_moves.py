# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that move between simulated hosts, from the call to the last device, with agents that really do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import two_hosts
from deployments import Api
from patience import wait
from two_hosts import C, act, settled, show, vgpus


@pytest.fixture(scope="module")
def fleet(start_service: Any, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with two_hosts.fleet(start_service, broker_url, tmp_path_factory.mktemp("moves"), flavors=("1", "2")) as api:
        yield api


@pytest.fixture
def server(fleet: Api) -> Iterator[str]:
    body = {"server": {"name": "s", "flavorRef": "1", "networks": "none"}}
    uuid: str = fleet.post(f"{C}/servers", json=body).json()["server"]["id"]
    settled(fleet, uuid, "ACTIVE")
    yield uuid
    fleet.delete(f"{C}/servers/{uuid}")
    wait(lambda: vgpus(fleet) == {"one": 0, "two": 0}, told=lambda: vgpus(fleet))


def test_a_resize_is_held_on_both_sides_and_freed_where_it_was_when_confirmed(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    assert act(fleet, server, "resize", {"flavorRef": "1"}) == 400
    assert act(fleet, server, "confirmResize") == 409
    assert act(fleet, server, "resize", {"flavorRef": "2"}) == 202
    target = settled(fleet, server, "VERIFY_RESIZE")
    assert target != source
    assert vgpus(fleet) == {source: 1, target: 2}
    assert act(fleet, server, "os-stop") == 409
    assert act(fleet, server, "confirmResize") == 204
    assert settled(fleet, server, "ACTIVE") == target
    assert vgpus(fleet) == {source: 0, target: 2}
    (listed,) = fleet.get(f"{C}/os-migrations?instance_uuid={server}").json()["migrations"]
    told = [listed[key] for key in ("migration_type", "status", "source_compute", "dest_compute")]
    assert told == ["resize", "confirmed", source, target]


def test_a_migration_that_is_reverted_is_as_if_it_had_not_been(fleet: Api, server: str) -> None:
    source = show(fleet, server)["OS-EXT-SRV-ATTR:host"]
    target = {"one": "two", "two": "one"}[source]
    assert act(fleet, server, "migrate", {"host": source}) == 400
    assert act(fleet, server, "os-stop") == 202
    settled(fleet, server, "SHUTOFF")
    assert act(fleet, server, "migrate", {"host": target}) == 202
    assert settled(fleet, server, "VERIFY_RESIZE") == target
    assert act(fleet, server, "revertResize") == 202
    assert settled(fleet, server, "SHUTOFF") == source
    assert vgpus(fleet) == {source: 1, target: 0}
    assert act(fleet, server, "os-start") == 202
    settled(fleet, server, "ACTIVE")


def test_a_server_that_is_deleted_before_the_word_leaves_nothing(fleet: Api, server: str) -> None:
    assert act(fleet, server, "resize", {"flavorRef": "2"}) == 202
    settled(fleet, server, "VERIFY_RESIZE")
    assert fleet.delete(f"{C}/servers/{server}").status_code == 204
    wait(lambda: vgpus(fleet) == {"one": 0, "two": 0})


def test_a_migration_with_a_shutdown_is_no_live_one(fleet: Api, server: str) -> None:
    assert act(fleet, server, "migrate") == 202
    settled(fleet, server, "VERIFY_RESIZE")
    assert act(fleet, server, "os-migrateLive", {"host": None, "block_migration": "auto"}) == 409
    (migration,) = fleet.get(f"{C}/os-migrations?instance_uuid={server}").json()["migrations"]
    of_server = f"{C}/servers/{server}/migrations"
    assert fleet.get(of_server).json() == {"migrations": []}
    assert fleet.get(f"{of_server}/{migration['id']}").status_code == 404
    force = {"force_complete": None}
    assert fleet.post(f"{of_server}/{migration['id']}/action", json=force).status_code == 400
    assert fleet.delete(f"{of_server}/{migration['id']}").status_code == 400
