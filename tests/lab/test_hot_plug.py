# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerators that a server is given, and gives back, while it is there. One server goes through all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from labvm import observe
from labvm.agent import EDU_ANSWERS, FPGA_ID, NVME_ID, VGPU_ID, Agent
from labvm.control import ControlPlane, wait_for
from labvm.machine import FPGA, NVME, NVME_TEXT, Machine
from labvm.servers import Server

from accelsched.failpoints import Point

_GUEST_S = 600.0
_NVME_VF = NVME.removesuffix("0") + "1"


class Plugged:
    """A server, and what is attached to it."""

    def __init__(self, control_plane: ControlPlane, lab_vm: Machine, server: Server) -> None:
        self.control = control_plane
        self.machine = lab_vm
        self.server = server

    def add(self, resource_class: str) -> None:
        self.control.openstack("accel", "server", "add", "accelerator", self.server.uuid, resource_class)

    def remove(self, accelerator: str) -> None:
        self.control.openstack("accel", "server", "remove", "accelerator", self.server.uuid, accelerator)

    def states(self) -> dict[str, str]:
        """Return the states of what was attached."""
        listed = self.control.get(f"/v1/servers/{self.server.uuid}/accelerators")["accelerators"]
        return {one["id"]: one["state"] for one in listed}

    def attached(self, number: int) -> list[str]:
        """Return the accelerators once there are so many, and all are attached."""
        wait_for(lambda: list(self.states().values()) == ["attached"] * number, _GUEST_S, f"{number} to be attached")
        return list(self.states())

    def free_of_all(self) -> None:
        """Wait until it has none, then see that nothing of them is left."""
        wait_for(lambda: not self.states(), _GUEST_S, "it to be detached")
        assert observe.own_mdevs(self.machine) == {}
        assert observe.definitions(self.machine) == {}
        assert self.machine.channel.check(["ls", "/var/lib/accelsched/mdevs", "/var/lib/accelsched/pci"]).split() == [
            "/var/lib/accelsched/mdevs:",
            "/var/lib/accelsched/pci:",
        ]
        xml = observe.domain_xml(self.machine, self.server.uuid)
        assert "<hostdev" not in xml
        assert " plug=" not in xml


@pytest.fixture(scope="module")
def plugged(agent: Agent, control_plane: ControlPlane, lab_vm: Machine) -> Iterator[Plugged]:
    assert agent.runs()
    server = Server.create(control_plane, lab_vm, "bare")
    server.booted()
    yield Plugged(control_plane, lab_vm, server)
    server.delete()


@pytest.mark.way(
    "attached to a running guest",
    "mediated device, virtual function and function of conventional PCI answer it; it lets go of all three",
)
def test_accelerators_are_attached_to_a_running_guest_which_lets_go_of_them(plugged: Plugged, lab_vm: Machine) -> None:
    server = plugged.server
    # The FPGA is a function of conventional PCI: its place is behind the domain's bridge, not in a port of PCI Express.
    wanted = (("VGPU", VGPU_ID), ("CUSTOM_NVME_VF", NVME_ID), ("FPGA", FPGA_ID))
    for number, (resource_class, identity) in enumerate(wanted, start=1):
        plugged.add(resource_class)
        server.says(f"pci .* {identity} ")
        plugged.attached(number)
    for answer in ("echoed=hello", rf"nvme \S+ disk=\S+ read={NVME_TEXT}", rf"edu \S+ {EDU_ANSWERS}"):
        server.says(answer)
    assert [observe.driver(lab_vm, function) for function in (_NVME_VF, FPGA)] == ["vfio-pci", "vfio-pci"]

    for accelerator in plugged.states():
        plugged.remove(accelerator)
        gone = lambda gone=accelerator: gone not in plugged.states()  # noqa: E731
        wait_for(gone, _GUEST_S, "it to be detached")
    plugged.free_of_all()
    assert [observe.driver(lab_vm, function) for function in (_NVME_VF, FPGA)] == [None, None]
    assert observe.domains(lab_vm)[server.uuid] == "running"
    server.says(r"pci \S+ gone", times=3)


@pytest.mark.way(
    "agent killed between device and running domain", "after its restart the guest has the same device, or all is gone"
)
def test_an_agent_killed_while_it_attaches_or_detaches_finishes_it_after_its_restart(
    plugged: Plugged, agent: Agent, lab_vm: Machine
) -> None:
    echoes = len(plugged.server.says("echoed=hello"))
    agent.kill_at(Point.AGENT_PLUG_PREPARED)
    plugged.add("VGPU")
    wait_for(lambda: not agent.runs(), _GUEST_S, "the agent to be killed")
    [made] = observe.own_mdevs(lab_vm)
    assert made not in observe.domain_xml(lab_vm, plugged.server.uuid)
    assert list(plugged.states().values()) == ["attaching"]

    agent.start()
    [accelerator] = plugged.attached(1)
    assert list(observe.own_mdevs(lab_vm)) == [made]
    assert f"<address uuid='{made}'/>" in observe.domain_xml(lab_vm, plugged.server.uuid)
    plugged.server.says("echoed=hello", times=echoes + 1)

    agent.kill_at(Point.AGENT_PLUG_DETACHED)
    plugged.remove(accelerator)
    wait_for(lambda: not agent.runs(), _GUEST_S, "the agent to be killed")
    assert list(observe.own_mdevs(lab_vm)) == [made]
    assert "<hostdev" not in observe.domain_xml(lab_vm, plugged.server.uuid)
    agent.start()
    plugged.free_of_all()


@pytest.mark.way("attached while shut off", "there when the guest starts, its registers answer it")
def test_what_is_attached_while_the_server_is_shut_off_is_there_when_it_starts(
    plugged: Plugged, control_plane: ControlPlane, lab_vm: Machine
) -> None:
    server = plugged.server
    answers = len(server.says(rf"edu \S+ {EDU_ANSWERS}"))
    control_plane.openstack("server", "stop", server.uuid)
    server.reaches("SHUTOFF")
    plugged.add("FPGA")
    [accelerator] = plugged.attached(1)
    assert observe.driver(lab_vm, FPGA) is None
    control_plane.openstack("server", "start", server.uuid)
    server.booted(times=2)
    server.says(rf"edu \S+ {EDU_ANSWERS}", times=answers + 1)
    server.reaches("ACTIVE")

    plugged.remove(accelerator)
    plugged.free_of_all()
    assert observe.driver(lab_vm, FPGA) is None
