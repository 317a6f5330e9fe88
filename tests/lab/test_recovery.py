# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The agent killed at the worst moments, its host switched off, and things on the host that are not its own.

One server with two mediated devices goes through all of it.
"""

from __future__ import annotations

import dataclasses

import pytest
from labvm import observe
from labvm.agent import Agent
from labvm.control import ControlPlane, wait_for
from labvm.machine import Machine

from accelsched.failpoints import Point

_WORKED_S = 600.0


@dataclasses.dataclass(frozen=True)
class Made:
    """The server, and its mediated devices with their parents as they were made before the agent was killed."""

    server: str
    mdevs: dict[str, str]


def _status(control_plane: ControlPlane, server: str) -> str:
    return str(control_plane.get(f"/compute/v2.1/servers/{server}")["server"]["status"])


def _wait_for_boot(lab_vm: Machine, server: str, number: int) -> None:
    count = ["grep", "-c", "accelsched-guest: ready", f"/var/lib/accelsched/instances/{server}/console.log"]
    what = f"the guest to have booted {number} times"
    wait_for(lambda: int(lab_vm.channel.call(count).stdout or 0) == number, _WORKED_S, what, interval=1.0)


@pytest.fixture(scope="module")
def made(agent: Agent, control_plane: ControlPlane, lab_vm: Machine) -> Made:
    """A server whose devices exist and whose domain does not: the agent was killed in between, and is not back."""
    size = ("--vcpus", "1", "--ram", "128", "--disk", "0")
    control_plane.openstack("flavor", "create", "lab-two", *size, "--property", "resources:VGPU=2")
    agent.kill_at(Point.AGENT_DEVICES_PREPARED)
    create = ("server", "create", "--flavor", "lab-two", "--image", "accelsched-guest", "--nic", "none", "two")
    server = str(control_plane.show(*create)["id"])
    wait_for(lambda: not agent.runs(), _WORKED_S, "the agent to be killed")
    return Made(server, observe.own_mdevs(lab_vm))


@pytest.mark.way("agent killed between device and domain", "after its restart the domain has the same devices")
def test_an_agent_killed_between_device_and_domain_goes_on_with_the_same_devices(
    made: Made, agent: Agent, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    assert len(made.mdevs) == 2
    assert observe.definitions(lab_vm) == made.mdevs
    assert made.server not in observe.domains(lab_vm)

    agent.start()
    wait_for(lambda: _status(control_plane, made.server) == "ACTIVE", _WORKED_S, "the server to be ACTIVE")
    assert observe.own_mdevs(lab_vm) == made.mdevs
    assert observe.domains(lab_vm)[made.server] == "running"


@pytest.mark.way("device and domain made by hand", "not touched")
def test_what_others_made_on_the_host_is_left_alone(
    made: Made, agent: Agent, lab_vm: Machine, strangers: tuple[str, str]
) -> None:
    assert agent.runs()
    mdev, domain = strangers
    assert mdev in observe.mdevs(lab_vm)
    assert observe.domains(lab_vm) == {domain: "paused", made.server: "running"}


@pytest.mark.way("host switched off and on", "mdevctl makes the same devices, once, and the server runs")
def test_a_server_is_back_with_its_devices_after_its_host_was_switched_off_and_on(
    made: Made, agent: Agent, lab_vm: Machine
) -> None:
    _wait_for_boot(lab_vm, made.server, 1)
    lab_vm.reboot()
    # The stranger's is gone, as nobody defined it; those that are defined are there before the agent is.
    wait_for(lambda: observe.mdevs(lab_vm) == made.mdevs, _WORKED_S, "mdevctl to have made the devices")
    assert observe.domains(lab_vm) == {made.server: "shut off"}

    agent.start()
    _wait_for_boot(lab_vm, made.server, 2)
    assert observe.mdevs(lab_vm) == observe.definitions(lab_vm) == made.mdevs
    xml = observe.domain_xml(lab_vm, made.server)
    assert all(f"<address uuid='{mdev}'/>" in xml for mdev in made.mdevs)


@pytest.mark.way("server deleted while the agent is dead", "nothing is left after its restart")
def test_a_server_deleted_while_the_agent_is_dead_leaves_nothing_behind(
    made: Made, agent: Agent, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    agent.kill()
    assert observe.domains(lab_vm)[made.server] == "running"  # a server does not need the agent to run
    control_plane.openstack("server", "delete", made.server)
    agent.start()
    wait_for(lambda: made.server not in observe.domains(lab_vm), _WORKED_S, "the domain to be gone")
    path = f"/placement/allocations/{made.server}"
    wait_for(lambda: not control_plane.get(path)["allocations"], _WORKED_S, "the allocation to be gone")
    _assert_no_device(lab_vm)


@pytest.mark.way(
    "agent killed between definition and device", "server deleted, host switched off and on: made by mdevctl, removed"
)
def test_a_device_that_was_only_defined_for_a_server_that_is_gone_does_not_stay_after_a_boot(
    agent: Agent, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    agent.kill_at(Point.AGENT_MDEV_DEFINED)
    create = ("server", "create", "--flavor", "lab-two", "--image", "accelsched-guest", "--nic", "none", "three")
    server = str(control_plane.show(*create)["id"])
    wait_for(lambda: not agent.runs(), _WORKED_S, "the agent to be killed")
    [mark] = observe.definitions(lab_vm)
    assert observe.own_mdevs(lab_vm) == {}
    control_plane.openstack("server", "delete", server)
    lab_vm.reboot()
    wait_for(lambda: mark in observe.mdevs(lab_vm), _WORKED_S, "mdevctl to have made the device")

    agent.start()
    path = f"/placement/allocations/{server}"
    wait_for(lambda: not control_plane.get(path)["allocations"], _WORKED_S, "the allocation to be gone")
    _assert_no_device(lab_vm)


def _assert_no_device(lab_vm: Machine) -> None:
    assert observe.own_mdevs(lab_vm) == {}
    assert observe.definitions(lab_vm) == {}
    assert lab_vm.channel.check(["ls", "/var/lib/accelsched/mdevs"]) == ""
