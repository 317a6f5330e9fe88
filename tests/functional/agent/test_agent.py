# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole agent over in-process messaging, with simulated servers and devices."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accelsched import errors, rpc


@pytest.fixture
def conf(tmp_path: Path, options_for: Callable[..., Any]) -> Any:
    return options_for(tmp_path / "state", virt_driver="simulated", device_drivers=["simulated"])


def vgpu(report: Any, amount: int = 1) -> dict[str, Any]:
    provider = next(provider for provider in report["providers"] if "VGPU" in provider["inventories"])
    return {
        "group": "",
        "provider_uuid": provider["uuid"],
        "provider_name": provider["name"],
        "resources": {"VGPU": amount},
    }


def test_a_server_is_built_shown_and_removed(control_plane: Any, conf: Any, assignment_for: Any) -> None:
    controller, agent = control_plane(conf)
    with agent(conf) as running:
        controller.wait_for(lambda: "node1" in controller.reports)
        server = assignment_for("node1", devices=[vgpu(controller.reports["node1"])])
        controller.assign(server)
        client = rpc.AgentClient(running._transport)
        client.sync(running.queue, ["node1"])
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])
        console = client.console_output(running.queue, "node1", server["server_uuid"], None)
        assert "simulated server test server" in console
        assert "simulated VGPU 0 of node1_simulated_gpu_0" in console
        assert client.console_output(running.queue, "node1", server["server_uuid"], 0) == ""
        with pytest.raises(errors.NotFoundError):
            client.console_output(running.queue, "node1", str(uuid.uuid4()), None)
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", server["server_uuid"]))
        with pytest.raises(errors.NotFoundError):
            client.console_output(running.queue, "node1", server["server_uuid"], None)


def test_a_hint_is_acted_on_long_before_the_next_comparison_is_due(
    control_plane: Any, conf: Any, assignment_for: Any
) -> None:
    conf.set_override("sync_interval", 3600.0, group="agent")
    controller, agent = control_plane(conf)
    with agent(conf) as running:
        controller.wait_for(lambda: controller.fetches >= 1)
        server = assignment_for("node1")
        controller.assign(server)
        time.sleep(0.5)
        assert controller.states(server["server_uuid"]) == []
        rpc.AgentClient(running._transport).sync(running.queue, ["node1"])
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])


def test_without_any_hint_the_next_comparison_finds_it(control_plane: Any, conf: Any, assignment_for: Any) -> None:
    controller, agent = control_plane(conf)
    with agent(conf):
        controller.wait_for(lambda: controller.fetches >= 1)
        server = assignment_for("node1")
        controller.assign(server)
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])


def test_a_build_that_failed_is_reported_once_and_tried_again_when_something_else_is_wanted(
    control_plane: Any, conf: Any, assignment_for: Any
) -> None:
    conf.set_override("simulated_failure_rate", 1.0, group="agent")
    controller, agent = control_plane(conf)
    server = assignment_for("node1")
    controller.assign(server)
    with agent(conf):
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["error"])
        seen = len(controller.observations)
        fetched = controller.fetches
        controller.wait_for(lambda: controller.fetches >= fetched + 3)
        assert len(controller.observations) == seen
        assert "simulated failure" in controller.observations[-1]["fault"]["message"]
        conf.set_override("simulated_failure_rate", 0.0, group="agent")
        controller.assign({**server, "name": "renamed"})
        fetched = controller.fetches
        controller.wait_for(lambda: controller.fetches >= fetched + 3)
        assert controller.states(server["server_uuid"])[-1:] == ["error"]
        controller.assign({**server, "flavor": {**server["flavor"], "vcpus": 2}})
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])


def test_a_server_deleted_while_it_is_built_goes_without_waiting_for_the_build(
    control_plane: Any, conf: Any, assignment_for: Any
) -> None:
    conf.set_override("simulated_build_seconds", 600.0, group="agent")
    controller, agent = control_plane(conf)
    server = assignment_for("node1")
    controller.assign(server)
    with agent(conf):
        controller.wait_for(lambda: controller.states(server["server_uuid"]) == ["building"])
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", server["server_uuid"]))
    assert controller.states(server["server_uuid"]) == ["building", "gone"]


def test_stopping_interrupts_builds_and_a_new_start_resumes_them(
    control_plane: Any, conf: Any, assignment_for: Any
) -> None:
    conf.set_override("simulated_build_seconds", 600.0, group="agent")
    controller, agent = control_plane(conf)
    server = assignment_for("node1")
    controller.assign(server)
    with agent(conf):
        controller.wait_for(lambda: controller.states(server["server_uuid"]) == ["building"])
    assert controller.states(server["server_uuid"]) == ["building"]
    conf.set_override("simulated_build_seconds", 0.0, group="agent")
    with agent(conf):
        controller.wait_for(lambda: controller.states(server["server_uuid"]) == ["building", "active"])


def test_a_control_plane_that_is_away_is_waited_for_and_complained_about_once(
    control_plane: Any, conf: Any, assignment_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    controller, agent = control_plane(conf)
    controller.answers = False
    server = assignment_for("node1")
    controller.assign(server)
    with agent(conf):
        time.sleep(3)
        controller.answers = True
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])
        controller.answers = False
        time.sleep(2)
        controller.answers = True
        beats = len(controller.beats)
        controller.wait_for(lambda: len(controller.beats) > beats)
    complaints = [record.message for record in caplog.records if "does not answer heartbeat" in record.message]
    assert 1 <= len(complaints) <= 2


def test_while_the_control_plane_is_away_nothing_is_taken_for_unwanted(
    control_plane: Any, conf: Any, assignment_for: Any
) -> None:
    controller, agent = control_plane(conf)
    server = assignment_for("node1")
    controller.assign(server)
    with agent(conf) as running:
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])
        controller.answers = False
        controller.unassign("node1", server["server_uuid"])
        time.sleep(2)
        assert len(running._hosts["node1"].virt.servers()) == 1
        controller.answers = True
        controller.wait_for(lambda: running._hosts["node1"].virt.servers() == [])


def test_a_host_whose_name_is_another_nodes_takes_no_part(control_plane: Any, conf: Any, assignment_for: Any) -> None:
    controller, agent = control_plane(conf)
    controller.reports["node1"] = {"host": "node1", "node_uuid": str(uuid.uuid4())}  # type: ignore[typeddict-item]
    controller.assign(assignment_for("node1"))
    with agent(conf) as running:
        time.sleep(1.5)
        assert controller.fetches == 0
        assert not any("node1" in beat for beat in controller.beats)
        assert running._hosts["node1"].virt.servers() == []


def test_a_control_plane_that_forgot_a_host_is_told_again(control_plane: Any, conf: Any, assignment_for: Any) -> None:
    controller, agent = control_plane(conf)
    server = assignment_for("node1")
    controller.assign(server)
    with agent(conf):
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])
        seen = len(controller.observations)
        controller.reports.clear()
        controller.wait_for(lambda: "node1" in controller.reports)
        controller.wait_for(lambda: len(controller.observations) > seen)
        assert controller.observations[-1]["state"] == "active"


def test_a_thousand_simulated_hosts_are_one_agent_with_a_handful_of_threads(
    control_plane: Any, conf: Any, assignment_for: Any
) -> None:
    controller, agent = control_plane(conf)
    with agent(conf, simulate=1000) as running:
        controller.wait_for(lambda: len(controller.reports) == 1000)
        assert sorted(controller.reports)[0] == "node1-0001"
        assert all(report["simulated"] for report in controller.reports.values())
        assert len({report["node_uuid"] for report in controller.reports.values()}) == 1000
        servers = [assignment_for(host, devices=[vgpu(report)]) for host, report in controller.reports.items()]
        for server in servers:
            controller.assign(server)
        rpc.AgentClient(running._transport).sync(running.queue, list(controller.reports))

        def active() -> int:
            return len({seen["server_uuid"] for seen in controller.observations if seen["state"] == "active"})

        controller.wait_for(lambda: active() == 1000)
        beats = len(controller.beats)
        controller.wait_for(lambda: len(controller.beats) >= beats + 4)
        # Two calls of 500 a beat, whatever the number of hosts.
        assert {len(beat) for beat in controller.beats[beats + 1 : beats + 4]} == {500}
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("agent-")]) < 20


def test_a_mediated_device_without_a_server_is_removed_and_what_is_wanted_is_kept(
    control_plane: Any, conf: Any, assignment_for: Any, sysfs: Any
) -> None:
    gpu = sysfs.add_function("0000:41:00.0", group=1)
    sysfs.add_mdev_parent(gpu, {"lab-1": 4})
    conf.set_override("sysfs_root", str(sysfs.root), group="devices")
    conf.set_override("device_drivers", ["mdev"], group="agent")
    orphan = "acce15ed-1111-8222-a333-444444444444"
    stranger = str(uuid.uuid4())
    for mark in (orphan, stranger):
        sysfs.add_mdev(gpu / "mdev_supported_types/lab-1", mark)
    controller, agent = control_plane(conf)
    with agent(conf):
        controller.wait_for(lambda: "node1" in controller.reports)
        server = assignment_for("node1", devices=[vgpu(controller.reports["node1"], 2)])
        controller.assign(server)
        controller.wait_for(lambda: controller.states(server["server_uuid"])[-1:] == ["active"])

        def marks() -> set[str]:
            return {path.name for path in sysfs.mdevs.iterdir()}

        controller.wait_for(lambda: orphan not in marks())
        assert stranger in marks()
        assert len(marks()) == 3
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: marks() == {stranger})
