# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: ``openstack server create`` to a guest that finds its device, and back to nothing."""

from __future__ import annotations

import re

import pytest
from labvm import observe
from labvm.agent import EDU_ANSWERS, FPGA_ID, VGPU_ID
from labvm.control import ControlPlane, wait_for
from labvm.machine import FPGA, Machine
from labvm.servers import LIVE_MIGRATE, Server
from stack.errors import StackError

pytestmark = pytest.mark.usefixtures("agent")

_TOLD_S = 600.0


@pytest.mark.way(
    "mediated device on a function", "the guest's driver is echoed by the device; made for the server, gone after"
)
@pytest.mark.way("live migration from an older host", "refused: QEMU is too old, and that is said")
def test_a_flavor_that_asks_for_a_vgpu_gives_the_guest_a_mediated_device(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    server = Server.create(
        control_plane, lab_vm, "vgpu", "resources:VGPU=1", "trait:CUSTOM_PCI_DEVICE_1234_11E8=required"
    )
    gpu = server.device("VGPU")

    [(mdev, parent)] = observe.own_mdevs(lab_vm).items()
    assert parent == gpu
    assert observe.domains(lab_vm)[server.uuid] == "running"
    assert f"<address uuid='{mdev}'/>" in observe.domain_xml(lab_vm, server.uuid)
    server.booted()
    console = server.console()
    assert re.search(rf"accelsched-guest: pci \S+ {VGPU_ID} ", console)
    assert "echoed=hello" in console  # the guest's driver talked to the device and got its interrupts

    with pytest.raises(StackError, match=r"has QEMU 7\.2[\d.]*, and to carry a mediated device over takes QEMU 8\.1"):
        control_plane.openstack(*LIVE_MIGRATE, server.uuid)
    server.delete()


@pytest.mark.way("whole function", "its registers answer the guest; vfio-pci while in use, given back")
@pytest.mark.way("function pulled out while in use", "lost, its server with a fault; back by a rescan")
def test_a_flavor_that_asks_for_an_fpga_gives_the_guest_the_whole_pci_device(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    assert observe.driver(lab_vm, FPGA) is None
    server = Server.create(control_plane, lab_vm, "fpga", "resources:FPGA=1")
    assert server.device("FPGA") == FPGA

    assert observe.driver(lab_vm, FPGA) == "vfio-pci"
    server.booted()
    console = server.console()
    assert re.search(rf"accelsched-guest: pci \S+ {FPGA_ID} ", console)
    assert re.search(rf"edu \S+ {EDU_ANSWERS}", console)

    # Somebody pulls the card out while the guest has it, and puts it back.
    observe.remove_function(lab_vm, FPGA)
    wait_for(lambda: _device_events(server) == ["device-lost"], _TOLD_S, "the server to be told", 1.0)
    assert server.shown()["fault"]["message"].startswith("FPGA of resource provider ")
    [lost] = control_plane.get("/v1/devices?status=lost")["devices"]
    assert lost["consumers"] == [server.uuid]
    assert lost["inventories"]["FPGA"]["reserved"] == 1
    lab_vm.channel.check(["sh", "-c", "echo 1 >/sys/bus/pci/rescan"])
    events = ["device-back", "device-lost"]
    wait_for(lambda: _device_events(server) == events, _TOLD_S, "the server to be told", 1.0)
    assert "fault" not in server.shown()

    server.delete()
    assert observe.driver(lab_vm, FPGA) is None


def _device_events(server: Server) -> list[str]:
    """Return what a server was told about its devices, the newest first."""
    return [action["action"] for action in server.actions() if action["action"].startswith("device-")]
