# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The broker dies or the database hangs up in the middle of a flow: it ends as it was asked for, nothing is left over.

``ACCELSCHED_TEST_FAULTS=all`` breaks them at each step, else at one of each flow.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cloud import Cloud
from killing import steps

from accelsched.failpoints import Point

FLOWS = {
    "create": [
        Point.API_SERVERS_COMMITTED,
        Point.SCHEDULER_REQUEST_LEASED,
        Point.SCHEDULER_CLAIM_WRITTEN,
        Point.SCHEDULER_CLAIM_COMMITTED,
        Point.AGENT_SERVER_BUILT,
        Point.CONTROLLER_OBSERVATION_WRITTEN,
        Point.CONTROLLER_OBSERVATION_COMMITTED,
    ],
    "stop": [
        Point.API_ACTION_WRITTEN,
        Point.API_ACTION_COMMITTED,
        Point.AGENT_ORDER_CARRIED_OUT,
        Point.CONTROLLER_OBSERVATION_WRITTEN,
    ],
    "migrate": [
        Point.SCHEDULER_CLAIM_WRITTEN,
        Point.AGENT_ORDER_CARRIED_OUT,
        Point.AGENT_FILES_FETCHED,
        Point.AGENT_SERVER_BUILT,
        Point.CONTROLLER_OBSERVATION_WRITTEN,
    ],
    "attach": [Point.API_ACTION_COMMITTED, Point.AGENT_PLUG_ATTACHED, Point.CONTROLLER_OBSERVATION_WRITTEN],
    "detach": [Point.API_ACTION_COMMITTED, Point.AGENT_PLUG_DETACHED, Point.CONTROLLER_OBSERVATION_WRITTEN],
    "delete": [Point.API_DELETION_COMMITTED, Point.AGENT_SERVER_DESTROYED, Point.CONTROLLER_OBSERVATION_WRITTEN],
}
BROKEN: dict[str, Callable[[Cloud], None]] = {
    "broker": lambda cloud: cloud.broker.restart(),
    "database": Cloud.cut_database,
}

broken = pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)


@broken
@pytest.mark.parametrize("point", steps(FLOWS["create"]))
def test_a_server_is_made(cloud: Cloud, point: Point, breaks: Callable[[Cloud], None]) -> None:
    with cloud.held_at(point, lambda: cloud.create("s")):
        breaks(cloud)
    cloud.assert_runs()


def test_a_create_call_that_lost_its_database_made_nothing_and_says_so(cloud: Cloud) -> None:
    with cloud.held_at(Point.API_SERVERS_WRITTEN, lambda: cloud.create("s", answers=[503])):
        cloud.cut_database()
    assert cloud.nothing_left()


@broken
@pytest.mark.parametrize("point", steps(FLOWS["stop"]))
def test_a_server_is_stopped_and_started(cloud: Cloud, point: Point, breaks: Callable[[Cloud], None]) -> None:
    server = cloud.one()
    with cloud.held_at(point, lambda: cloud.act(server, "os-stop")):
        breaks(cloud)
    cloud.assert_stopped()
    with cloud.held_at(point, lambda: cloud.act(server, "os-start")):
        breaks(cloud)
    cloud.assert_runs()


@broken
@pytest.mark.parametrize("point", steps(FLOWS["migrate"]))
def test_a_server_goes_to_another_host(cloud: Cloud, point: Point, breaks: Callable[[Cloud], None]) -> None:
    server = cloud.one()
    cloud.mark(server)
    with cloud.held_at(point, lambda: cloud.act(server, "migrate")):
        breaks(cloud)
    host = cloud.wait_for("VERIFY_RESIZE")["OS-EXT-SRV-ATTR:host"]
    assert cloud.marked(server, host)
    cloud.act(server, "confirmResize")
    cloud.assert_runs()


@broken
@pytest.mark.parametrize("point", steps(FLOWS["attach"]))
def test_an_accelerator_is_attached(cloud: Cloud, point: Point, breaks: Callable[[Cloud], None]) -> None:
    server = cloud.one()
    with cloud.held_at(point, lambda: cloud.attach(server)):
        breaks(cloud)
    cloud.assert_attached(server)


@broken
@pytest.mark.parametrize("point", steps(FLOWS["detach"]))
def test_an_accelerator_is_detached(cloud: Cloud, point: Point, breaks: Callable[[Cloud], None]) -> None:
    server = cloud.one()
    cloud.attach(server)
    cloud.assert_attached(server)
    with cloud.held_at(point, lambda: cloud.detach(server)):
        breaks(cloud)
    cloud.assert_detached(server)


@broken
@pytest.mark.parametrize("point", steps(FLOWS["delete"]))
def test_a_server_is_deleted(cloud: Cloud, point: Point, breaks: Callable[[Cloud], None]) -> None:
    server = cloud.one()
    with cloud.held_at(point, lambda: cloud.delete(server)):
        breaks(cloud)
    # The fixture waits until nothing is left.
