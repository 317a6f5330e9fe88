# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the control plane can ask an agent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from accelsched import errors, rpc
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


def test_what_is_on_a_servers_config_drive_is_told_only_while_it_is_to_go(context: Any, tmp_path: Path) -> None:
    class Departing(SimulatedDriver):
        def departing_files(self, server_uuid: str) -> dict[str, Path]:
            return {"disk.config": tmp_path / "drive"}

    (tmp_path / "drive").write_bytes(b"secret")
    host, looked = Host(context, Departing(context), {}), list[Any]()
    endpoint = Endpoint({"node1": host}, looked.append, 10)
    for ask in (endpoint.departure, lambda *it: endpoint.read_departing_file(*it, "disk.config", 0)):
        with pytest.raises(rpc.messaging.ExpectedException) as refused:  # type: ignore[attr-defined]
            ask({}, "node1", "s")
        assert refused.value.exc_info[0] is errors.UnavailableError  # who asks tries again
    assert looked == [["node1"], ["node1"]]  # it may be so, and was not heard yet

    host.departing = frozenset({"s"})
    assert endpoint.departure({}, "node1", "s") == {"files": {}}
    assert base64.b64decode(endpoint.read_departing_file({}, "node1", "s", "disk.config", 0)["data"]) == b"secret"
    with pytest.raises(rpc.messaging.ExpectedException):  # type: ignore[attr-defined]
        endpoint.read_departing_file({}, "node1", "s", "disk", 0)


def test_a_hint_is_passed_on_for_hosts_of_this_agent_only() -> None:
    hinted: list[Any] = []
    Endpoint({"node1": None}, hinted.append, 10).sync({}, ["node1", "node2"])  # type: ignore[dict-item]
    assert hinted == [["node1"]]
