# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of any process at each step of each flow: it ends as it was asked for, and nothing is left over.

``ACCELSCHED_TEST_FAULTS=all`` kills at each step, else at one of each flow.
"""

from __future__ import annotations

import functools
from typing import Any

import patience
import pytest
from cloud import HOSTS, Cloud
from killing import steps

from accelsched import names
from accelsched.failpoints import Point

_REPORT = [Point.CONTROLLER_OBSERVATION_WRITTEN, Point.CONTROLLER_OBSERVATION_COMMITTED]
_PLACE = [
    Point.SCHEDULER_REQUEST_LEASED,
    Point.SCHEDULER_DECIDED,
    Point.SCHEDULER_CLAIM_WRITTEN,
    Point.SCHEDULER_CLAIM_COMMITTED,
]
_ACT = [Point.API_ACTION_COMMITTED]
_BUILD = [Point.AGENT_DEVICES_PREPARED, Point.AGENT_SERVER_BUILT]
_REMOVE = [Point.AGENT_SERVER_DESTROYED, Point.AGENT_SERVER_REMOVED]
_OBEY = [Point.AGENT_ORDER_CARRIED_OUT, Point.AGENT_ORDER_NOTED]
_MOVE = [*_ACT, *_PLACE, _OBEY[0], Point.AGENT_FILES_FETCHED, _OBEY[1], *_BUILD, *_REPORT]

FLOWS = {
    "create": [Point.API_SERVERS_COMMITTED, *_PLACE, *_BUILD, *_REPORT],
    "delete": [Point.API_DELETION_COMMITTED, *_REMOVE, *_REPORT],
    "stop": [*_ACT, *_OBEY, *_REPORT],
    "reboot": [*_ACT, *_BUILD, *_OBEY],
    "suspend": [*_ACT, *_OBEY, *_REPORT],
    "resume": [*_ACT, Point.AGENT_DOMAIN_STARTED, *_OBEY, *_REPORT],
    "rebuild": [*_ACT, *_REMOVE, *_BUILD, *_REPORT],
    "evacuate": [*_ACT, *_PLACE, *_BUILD, *_REPORT],
    "return": _REMOVE,
    "resize": _MOVE,
    "migrate": _MOVE,
    "live": [*_ACT, *_PLACE, Point.AGENT_LANDING_PREPARED, *_OBEY, *_REPORT],
    "confirm": [*_ACT, *_REMOVE, *_REPORT],
    "revert": [*_ACT, *_REMOVE, *_BUILD, *_OBEY, *_REPORT],
    "attach": [*_ACT, Point.AGENT_PLUG_PREPARED, Point.AGENT_PLUG_ATTACHED, *_REPORT],
    "detach": [
        *_ACT,
        Point.AGENT_PLUG_DETACHED,
        Point.AGENT_PLUG_RELEASED,
        Point.AGENT_PLUG_FORGOTTEN,
        *_REPORT,
    ],
    "bind": [*_ACT, Point.AGENT_PLUG_ATTACHED, *_REPORT],
    "release": [*_ACT, Point.AGENT_PLUG_RELEASED, *_REPORT],
}
_REFUSED = {Point.API_SERVERS_WRITTEN, Point.API_ACTION_WRITTEN}
# Only where there are devices that a domain has: tests/lab.
_ELSEWHERE = {Point.AGENT_MDEV_DEFINED, Point.AGENT_DEVICES_PUT_AWAY}


def test_every_point_is_in_some_flow() -> None:
    assert {point for points in FLOWS.values() for point in points} | _REFUSED | _ELSEWHERE == set(Point)


@pytest.mark.parametrize("point", steps(FLOWS["create"]))
def test_a_server_is_made(cloud: Cloud, point: Point) -> None:
    with cloud.killed_at(point):
        cloud.create("s")
    cloud.assert_runs()


def test_a_create_call_that_was_not_committed_made_nothing(cloud: Cloud) -> None:
    with cloud.killed_at(Point.API_SERVERS_WRITTEN):
        cloud.create("s")
    assert cloud.nothing_left()


@pytest.mark.parametrize("point", steps(FLOWS["delete"]))
def test_a_server_is_deleted(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.killed_at(point):
        cloud.delete(server)
    # The fixture waits until nothing is left.


@pytest.mark.parametrize("point", steps(FLOWS["stop"]))
def test_a_server_is_stopped(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.killed_at(point):
        cloud.act(server, "os-stop")
    cloud.assert_stopped()


def test_an_action_that_was_not_committed_did_nothing(cloud: Cloud) -> None:
    server = cloud.one()
    with cloud.killed_at(Point.API_ACTION_WRITTEN):
        cloud.act(server, "os-stop")
    cloud.assert_runs()


@pytest.mark.parametrize("point", steps(FLOWS["reboot"]))
def test_a_server_is_rebooted(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.killed_at(point):
        cloud.act(server, "reboot", {"type": "HARD"})
    cloud.assert_runs()


@pytest.mark.parametrize("point", steps(FLOWS["suspend"]))
def test_a_server_is_suspended(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.killed_at(point):
        cloud.act(server, "suspend")
    cloud.assert_suspended()


@pytest.mark.parametrize("point", steps(FLOWS["resume"]))
def test_a_server_is_resumed(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    cloud.act(server, "suspend")
    cloud.assert_suspended()
    with cloud.killed_at(point):
        cloud.act(server, "resume")
    cloud.assert_runs()


@pytest.mark.parametrize("point", steps(FLOWS["rebuild"]))
def test_a_server_is_rebuilt(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.killed_at(point):
        cloud.act(server, "rebuild", {"imageRef": cloud.image})
    cloud.assert_runs()


@pytest.mark.parametrize("point", steps(FLOWS["evacuate"]))
def test_a_server_is_evacuated(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    with cloud.lost(old):
        with cloud.killed_at(point):
            cloud.act(server, "evacuate", {})
        moved = cloud.wait_for("ACTIVE")
        assert moved["OS-EXT-SRV-ATTR:host"] != old
        cloud.assert_runs()
    # Back again, the host gives up what is not its own any more; the fixture waits for that once the server is deleted.
    cloud.assert_runs()


@pytest.mark.parametrize("point", steps(FLOWS["return"]))
def test_a_host_that_is_back_gives_up_what_has_left_it(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    with cloud.lost(old):
        cloud.act(server, "evacuate", {})
        cloud.wait_for("ACTIVE")
        cloud.assert_runs()
        with cloud.killed_at(point):
            cloud.restore(old)
    patience.wait(lambda: not cloud.directories(old), told=cloud.everything)
    cloud.assert_runs()


def _moved(cloud: Cloud, server: str, action: str, arguments: Any = None) -> tuple[str, str]:
    """Have a server moved; return from where and whereto. Both sides are held and have its files, one its domain."""
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    cloud.act(server, action, arguments)
    new = cloud.wait_for("VERIFY_RESIZE")["OS-EXT-SRV-ATTR:host"]
    assert {old, new} == set(HOSTS)
    assert (cloud.domains(old), cloud.domains(new)) == ({}, {server: True})
    assert cloud.directories(old) == cloud.directories(new) == {server}
    return old, new


@pytest.mark.parametrize("point", steps(FLOWS["migrate"]))
def test_a_server_goes_to_another_host(cloud: Cloud, point: Point) -> None:
    server = cloud.one(networks="auto")
    cloud.mark(server)
    with cloud.killed_at(point):
        old, new = _moved(cloud, server, "migrate")
    assert cloud.marked(server, old)
    assert cloud.interfaces(server) == [(cloud.network, names.mac_address(server))]
    assert cloud.held() == {"VCPU": 2, "MEMORY_MB": 128, "DISK_GB": 2, "VGPU": 2}
    assert cloud.marked(server, new)
    cloud.act(server, "confirmResize")
    cloud.assert_runs()


@pytest.mark.parametrize("point", steps(FLOWS["live"]))
def test_a_server_that_cannot_go_while_it_runs_stays(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    (other,) = {*HOSTS} - {old}
    with cloud.killed_at(point):
        cloud.act(server, "os-migrateLive", {"host": None, "block_migration": "auto"})
    patience.wait(lambda: cloud.migrations(server) == ["error"], told=lambda: cloud.migrations(server))
    assert cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"] == old  # nobody listens for libvirt on the other
    cloud.assert_runs()
    patience.wait(lambda: cloud.directories(other) == set())
    tried, action = cloud.events(server)  # another host was looked for, and there is none
    assert (tried["host"], tried["result"], action["result"]) == (other, "Error", "Error")
    assert "unable to connect" in tried["details"]
    assert action["details"].startswith("No valid host")


def test_a_server_does_not_wait_for_a_host_that_is_lost_before_it_was_ready(cloud: Cloud) -> None:
    server = cloud.one()
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    (other,) = {*HOSTS} - {old}
    arguments = {"host": None, "block_migration": "auto"}
    act = functools.partial(cloud.act, server, "os-migrateLive", arguments)
    with cloud.held_at(Point.AGENT_LANDING_PREPARED, act), cloud.lost(other):
        patience.wait(lambda: cloud.migrations(server) == ["error"], told=lambda: cloud.migrations(server))
        assert cloud.events(server)[0]["details"] == f"Host {other} was lost, where the server was to go."
        cloud.assert_runs()
    patience.wait(lambda: cloud.directories(other) == set())


@pytest.mark.parametrize("point", steps(FLOWS["resize"]))
def test_a_server_gets_another_size(cloud: Cloud, point: Point) -> None:
    server = cloud.one(networks="auto")
    with cloud.killed_at(point):
        old, new = _moved(cloud, server, "resize", {"flavorRef": "larger"})
    assert cloud.interfaces(server) == [(cloud.network, names.mac_address(server))]
    assert cloud.held() == {"VCPU": 2, "MEMORY_MB": 160, "DISK_GB": 3, "VGPU": 3}
    assert (cloud.disk_gb(server, old), cloud.disk_gb(server, new)) == (1, 2)


@pytest.mark.parametrize("point", steps(FLOWS["confirm"]))
def test_a_servers_new_size_is_confirmed(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    old, new = _moved(cloud, server, "resize", {"flavorRef": "larger"})
    with cloud.killed_at(point):
        cloud.act(server, "confirmResize")
    cloud.wait_for("ACTIVE")
    assert cloud.held() == {"VCPU": 1, "MEMORY_MB": 96, "DISK_GB": 2, "VGPU": 2}
    assert (cloud.directories(old), cloud.domains(new)) == (set(), {server: True})
    assert cloud.disk_gb(server, new) == 2


@pytest.mark.parametrize("point", steps(FLOWS["revert"]))
def test_a_servers_new_size_is_taken_back(cloud: Cloud, point: Point) -> None:
    server = cloud.one(networks="auto")
    old, _ = _moved(cloud, server, "resize", {"flavorRef": "larger"})
    with cloud.killed_at(point):
        cloud.act(server, "revertResize")
    assert cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"] == old
    cloud.assert_runs()
    assert cloud.interfaces(server) == [(cloud.network, names.mac_address(server))]
    assert cloud.disk_gb(server, old) == 1


@pytest.mark.parametrize("point", steps(FLOWS["attach"]))
def test_an_accelerator_is_attached(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.killed_at(point):
        cloud.attach(server)
    cloud.assert_attached(server)


@pytest.mark.parametrize("point", steps(FLOWS["detach"]))
def test_an_accelerator_is_detached(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    cloud.attach(server)
    cloud.assert_attached(server)
    with cloud.killed_at(point):
        cloud.detach(server)
    cloud.assert_detached(server)


def test_an_accelerator_whose_claim_was_not_committed_is_not_attached(cloud: Cloud) -> None:
    server = cloud.one()
    with cloud.killed_at(Point.API_ACTION_WRITTEN):
        cloud.attach(server)
    cloud.assert_detached(server)


@pytest.mark.parametrize("point", steps(FLOWS["bind"]))
def test_an_accelerator_request_is_bound(cloud: Cloud, point: Point) -> None:
    server, request = cloud.one(), cloud.make_request()
    with cloud.killed_at(point):
        cloud.bind(request, server)
    cloud.assert_attached(server)
    assert cloud.requests() == {request: "Bound"}


@pytest.mark.parametrize("point", steps(FLOWS["release"]))
def test_an_accelerator_request_that_is_bound_is_deleted(cloud: Cloud, point: Point) -> None:
    server, request = cloud.one(), cloud.make_request()
    cloud.bind(request, server)
    cloud.assert_attached(server)
    with cloud.killed_at(point):
        cloud.delete_request(request)
    cloud.assert_detached(server)
    assert cloud.requests() == {}


def test_an_accelerator_request_whose_claim_was_not_committed_is_bound_to_nothing(cloud: Cloud) -> None:
    server, request = cloud.one(), cloud.make_request()
    with cloud.killed_at(Point.API_ACTION_WRITTEN):
        cloud.bind(request, server)
    cloud.assert_detached(server)
    assert cloud.requests() == {request: "Initial"}
    cloud.delete_request(request)


@pytest.mark.parametrize("point", steps(FLOWS["attach"][1:3]))
def test_a_server_that_is_deleted_while_an_accelerator_comes_leaves_nothing(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    with cloud.held_at(point, lambda: cloud.attach(server)):
        cloud.delete(server)
    # The fixture waits until nothing is left.


@pytest.mark.parametrize("point", steps(FLOWS["detach"][1:4]))
def test_a_server_that_is_deleted_while_an_accelerator_goes_leaves_nothing(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    cloud.attach(server)
    cloud.assert_attached(server)
    with cloud.held_at(point, lambda: cloud.detach(server)):
        cloud.delete(server)
