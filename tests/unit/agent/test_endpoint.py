# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the control plane can ask an agent."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched import rpc
from accelsched.agent.devices.simulated import SimulatedDeviceDriver
from accelsched.agent.endpoint import Endpoint
from accelsched.agent.host import Host
from accelsched.agent.virt.simulated import SimulatedDriver


class Console(SimulatedDriver):
    def console_output(self, server_uuid: str) -> str:
        return "one\ntwo\nthree\n"


@pytest.fixture
def endpoint(context: Any) -> Endpoint:
    host = Host(context, Console(context), {"simulated": SimulatedDeviceDriver(context)})
    return Endpoint({"node1": host}, lambda _hosts: None, 10)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (None, "two\nthree\n"),
        (1, "three\n"),
        (2, "two\nthree\n"),
        (0, ""),
        (-1, "two\nthree\n"),
        (99, "two\nthree\n"),
    ],
)
def test_the_console_is_cut_to_so_many_lines_and_a_bound(endpoint: Endpoint, length: int | None, expected: str) -> None:
    assert endpoint.console_output({}, "node1", "s", length) == expected


def test_another_host_is_not_found(endpoint: Endpoint) -> None:
    with pytest.raises(rpc.messaging.ExpectedException):  # type: ignore[attr-defined]
        endpoint.console_output({}, "node2", "s", None)


def test_a_hint_is_passed_on_for_hosts_of_this_agent_only() -> None:
    hinted: list[Any] = []
    Endpoint({"node1": None}, hinted.append, 10).sync({}, ["node1", "node2"])  # type: ignore[dict-item]
    assert hinted == [["node1"]]
