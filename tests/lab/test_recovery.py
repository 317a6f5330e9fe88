# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The agent killed at the worst moments, and things on its host that are not its own."""

from __future__ import annotations

from labvm import observe
from labvm.agent import Agent
from labvm.control import ControlPlane, wait_for
from labvm.machine import Machine

from accelsched import names

_RESTARTED_S = 300.0


def _own_mdevs(lab_vm: Machine) -> list[str]:
    return [uuid for uuid in observe.mdevs(lab_vm) if names.is_own_mdev(uuid)]


def test_a_killed_agent_loses_no_server_and_leaves_nothing_behind(
    agent: Agent, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    size = ("--vcpus", "1", "--ram", "128", "--disk", "0")
    control_plane.openstack("flavor", "create", "lab-two", *size, "--property", "resources:VGPU=2")
    create = ("server", "create", "--flavor", "lab-two", "--image", "accelsched-guest", "--nic", "none", "two")
    server = control_plane.show(*create)["id"]

    # The first of its two devices exists, the second perhaps; its domain does not.
    agent.kill_when("ls /sys/bus/mdev/devices | grep -q ^acce15ed", timeout=60)
    made = set(_own_mdevs(lab_vm))
    assert 1 <= len(made) <= 2
    assert server not in observe.domains(lab_vm)

    agent.start()
    path = f"/compute/v2.1/servers/{server}"
    wait_for(lambda: control_plane.get(path)["server"]["status"] == "ACTIVE", _RESTARTED_S, "the server to be ACTIVE")
    assert len(_own_mdevs(lab_vm)) == 2
    assert made <= set(_own_mdevs(lab_vm))
    assert observe.domains(lab_vm)[server] == "running"

    agent.kill()
    assert observe.domains(lab_vm)[server] == "running"  # a server does not need the agent to run
    control_plane.openstack("server", "delete", server)
    agent.start()
    wait_for(lambda: server not in observe.domains(lab_vm), _RESTARTED_S, "the domain to be gone")
    path = f"/placement/allocations/{server}"
    wait_for(lambda: not control_plane.get(path)["allocations"], 30, "the allocation to be gone")
    assert _own_mdevs(lab_vm) == []
    assert lab_vm.channel.check(["ls", "/var/lib/accelsched/mdevs"]) == ""


def test_what_others_made_on_the_host_is_left_alone(agent: Agent, lab_vm: Machine, strangers: tuple[str, str]) -> None:
    assert agent.runs()
    mdev, domain = strangers
    assert mdev in observe.mdevs(lab_vm)
    assert observe.domains(lab_vm) == {domain: "paused"}
