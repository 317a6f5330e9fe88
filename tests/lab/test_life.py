# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A server with devices through all that its owner can do to it. One server goes through all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from labvm import observe
from labvm.agent import Agent
from labvm.control import ControlPlane, wait_for
from labvm.machine import NVME, NVME_TEXT, SRIOV_GPU, Machine
from labvm.servers import Server

from accelsched.failpoints import Point

_WORKED_S = 600.0
_NVME_VF = NVME.removesuffix("0") + "1"
_READ = rf"nvme \S+ disk=\S+ read={NVME_TEXT}"  # by the guest's driver, DMA and interrupts
_ECHO = "echoed=hello"
_ASKED = (
    *("group_policy=none", "resources_nvme:CUSTOM_NVME_VF=1", "resources_gpu:VGPU=1"),
    "trait_gpu:CUSTOM_PCI_DEVICE_1B36_0010=required",
)


@pytest.fixture(scope="module")
def server(agent: Agent, control_plane: ControlPlane, lab_vm: Machine) -> Iterator[Server]:
    assert agent.runs()
    server = Server.create(control_plane, lab_vm, "functions", *_ASKED)
    yield server
    server.delete()
    assert observe.driver(lab_vm, _NVME_VF) is None
    assert lab_vm.channel.check(["ls", "/var/lib/accelsched/pci"]) == ""


def _has_its_devices(server: Server) -> str:
    """See that a server's domain runs with its own devices and that there are no others; return the mediated one."""
    machine = server.machine
    [(mdev, parent)] = observe.own_mdevs(machine).items()
    assert parent == SRIOV_GPU.removesuffix("0") + "1"
    assert list(observe.definitions(machine)) == [mdev]
    assert observe.driver(machine, _NVME_VF) == "vfio-pci"
    assert observe.domains(machine)[server.uuid] == "running"
    xml = observe.domain_xml(machine, server.uuid)
    assert f"<address uuid='{mdev}'/>" in xml
    assert xml.count("<hostdev ") == 2
    return mdev


@pytest.mark.way("virtual function", "the guest's driver reads its disk; vfio-pci while in use, given back")
@pytest.mark.way(
    "mediated device on a virtual function", "the guest's driver is echoed by the device; the card's capacity counts"
)
def test_virtual_functions_are_given_whole_and_as_parents_of_mediated_devices(server: Server) -> None:
    assert server.device("CUSTOM_NVME_VF") == NVME
    assert server.device("VGPU") == SRIOV_GPU
    _has_its_devices(server)
    server.booted()
    console = server.console()
    assert re.search(_READ, console)
    assert _ECHO in console


@pytest.mark.way(
    "suspended and resumed", "the guest lets go of both and has both again; agent killed in the midst of either"
)
def test_a_guest_is_suspended_without_its_devices_and_goes_on_with_them(
    server: Server, agent: Agent, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    def killed() -> None:
        wait_for(lambda: not agent.runs(), _WORKED_S, "the agent to be killed")
        agent.start()

    made = observe.own_mdevs(lab_vm)
    agent.kill_at(Point.AGENT_DEVICES_PUT_AWAY)
    control_plane.openstack("server", "suspend", server.uuid)
    killed()
    server.reaches("SUSPENDED")
    assert observe.domains(lab_vm)[server.uuid] == "shut off"
    server.says(r"pci \S+ gone", times=2)
    assert observe.own_mdevs(lab_vm) == made

    agent.kill_at(Point.AGENT_DOMAIN_STARTED)
    control_plane.openstack("server", "resume", server.uuid)
    killed()
    server.reaches("ACTIVE")
    assert {_has_its_devices(server)} == set(made)
    for answer in (_READ, _ECHO):
        server.says(answer, times=2)
    assert len(server.says("accelsched-guest: kernel")) == 1  # it was not booted again


@pytest.mark.way("rebooted hard, rebuilt, resized", "just its own devices each time, which answer the guest in the end")
def test_a_server_has_just_its_devices_whatever_its_owner_does(
    server: Server, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    mdev = _has_its_devices(server)
    control_plane.openstack("server", "reboot", "--hard", server.uuid)
    server.reaches("ACTIVE")
    assert _has_its_devices(server) == mdev
    control_plane.openstack("server", "rebuild", "--image", "accelsched-guest", server.uuid)
    server.reaches("ACTIVE")
    _has_its_devices(server)

    asked = [word for text in _ASKED for word in ("--property", text)]
    control_plane.openstack("flavor", "create", "--vcpus", "1", "--ram", "160", "--disk", "1", "lab-larger", *asked)
    control_plane.openstack("server", "resize", "--flavor", "lab-larger", server.uuid)
    server.reaches("VERIFY_RESIZE")
    control_plane.openstack("server", "resize", "confirm", server.uuid)
    server.reaches("ACTIVE")
    _has_its_devices(server)
    kernels = len(server.says("accelsched-guest: kernel"))
    server.booted(times=kernels)
    for answer in (_READ, _ECHO):
        assert re.search(answer, server.console().rpartition("accelsched-guest: kernel")[2])
