# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A host is lost while a server leaves it: nothing waits for it for ever, and when it is back the server is whole."""

from __future__ import annotations

import patience
import pytest
from cloud import Cloud

from accelsched.failpoints import Point


@pytest.mark.parametrize("point", [Point.AGENT_ORDER_NOTED, Point.CONTROLLER_OBSERVATION_WRITTEN])
def test_a_server_whose_disk_was_not_fetched_yet_stays_with_its_host(cloud: Cloud, point: Point) -> None:
    server = cloud.one()
    cloud.mark(server)
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    with cloud.held_at(point, lambda: cloud.act(server, "migrate")):
        cloud.cut_power(old)
    if point is Point.CONTROLLER_OBSERVATION_WRITTEN:
        cloud.wait_for("RESIZE", "resize_finish")
    with cloud.lost(old):
        assert cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"] == old
        assert cloud.migrations(server) == ["error"]
    patience.wait(lambda: cloud.domains(old) == {server: True}, told=cloud.everything)
    cloud.assert_runs()
    assert cloud.marked(server, old)


def test_a_server_whose_disk_was_fetched_already_goes_where_it_was_to_go(cloud: Cloud) -> None:
    server = cloud.one()
    old = cloud.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
    with cloud.held_at(Point.AGENT_FILES_FETCHED, lambda: cloud.act(server, "migrate")):
        cloud.cut_power(old)
    with cloud.lost(old):
        assert cloud.wait_for("VERIFY_RESIZE")["OS-EXT-SRV-ATTR:host"] != old
        cloud.act(server, "confirmResize")
        cloud.assert_runs()
    patience.wait(lambda: not cloud.directories(old), told=cloud.everything)
