# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: ``openstack server create`` to a guest that finds its device, and back to nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from labvm import observe
from labvm.agent import FPGA_ID, NVME_ID, VGPU_ID
from labvm.control import ControlPlane, wait_for
from labvm.machine import FPGA, HOST, NVME, NVME_TEXT, SRIOV_GPU, Machine
from stack.errors import StackError

from accelsched import names

pytestmark = pytest.mark.usefixtures("agent")

_GUEST_S = 1800.0
_TOLD_S = 1800.0


def _create(control_plane: ControlPlane, name: str, *properties: str) -> str:
    """Make a flavor and a server of it; return the server's uuid once it is ACTIVE."""
    size = ("--vcpus", "1", "--ram", "128", "--disk", "1")
    asked = [word for text in properties for word in ("--property", text)]
    control_plane.openstack("flavor", "create", f"lab-{name}", *size, *asked)
    flavor_and_image = ("--flavor", f"lab-{name}", "--image", "accelsched-guest")
    server = control_plane.show("server", "create", *flavor_and_image, "--nic", "none", "--wait", name)
    assert server["status"] == "ACTIVE"
    return str(server["id"])


def _device(control_plane: ControlPlane, server: str, resource_class: str) -> str:
    """Return the PCI address of the device that a server holds an allocation of."""
    allocations = control_plane.show("resource", "provider", "allocation", "show", server)
    [provider] = [held["resource_provider"] for held in allocations if resource_class in held["resources"]]
    name: str = control_plane.get(f"/placement/resource_providers/{provider}")["name"]
    domain, bus, slot, function = name.removeprefix(f"{HOST}_pci_").split("_")
    return f"{domain}:{bus}:{slot}.{function}"


def _console_of_booted_guest(control_plane: ControlPlane, lab_vm: Machine, server: str) -> str:
    console = f"/var/lib/accelsched/instances/{server}/console.log"
    ready = ["grep", "-q", "accelsched-guest: ready", console]
    try:
        wait_for(lambda: lab_vm.channel.call(ready).returncode == 0, _GUEST_S, "the guest to have booted", interval=1.0)
    except TimeoutError as exc:
        state, said = observe.domains(lab_vm).get(server), lab_vm.channel.check(["tail", "-c", "4000", console])
        raise AssertionError(f"{exc}; the domain is {state}, its console ends:\n{said}") from exc
    return control_plane.openstack("console", "log", "show", server)


def _assert_nothing_left(control_plane: ControlPlane, lab_vm: Machine, server: str) -> None:
    assert server not in observe.domains(lab_vm)
    assert [uuid for uuid in observe.mdevs(lab_vm) if names.is_own_mdev(uuid)] == []
    assert lab_vm.channel.check(["ls", "/var/lib/accelsched/mdevs"]) == ""
    assert server not in lab_vm.channel.check(["ls", "/var/lib/accelsched/instances"])
    assert control_plane.show("resource", "provider", "allocation", "show", server) == []
    with pytest.raises(StackError, match=r"No [Ss]erver found"):
        control_plane.show("server", "show", server)


@pytest.mark.way(
    "mediated device on a function", "the guest's driver is echoed by the device; made for the server, gone after"
)
def test_a_flavor_that_asks_for_a_vgpu_gives_the_guest_a_mediated_device(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    server = _create(control_plane, "vgpu", "resources:VGPU=1", "trait:CUSTOM_PCI_DEVICE_1234_11E8=required")
    gpu = _device(control_plane, server, "VGPU")

    [(mdev, parent)] = [(uuid, parent) for uuid, parent in observe.mdevs(lab_vm).items() if names.is_own_mdev(uuid)]
    assert parent == gpu
    assert observe.domains(lab_vm)[server] == "running"
    assert f"<address uuid='{mdev}'/>" in observe.domain_xml(lab_vm, server)
    console = _console_of_booted_guest(control_plane, lab_vm, server)
    assert re.search(rf"accelsched-guest: pci \S+ {VGPU_ID} ", console)
    assert "echoed=hello" in console  # the guest's driver talked to the device and got its interrupts

    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)


@pytest.mark.way("whole function", "its registers answer the guest; vfio-pci while in use, given back")
@pytest.mark.way("function pulled out while in use", "lost, its server with a fault; back by a rescan")
def test_a_flavor_that_asks_for_an_fpga_gives_the_guest_the_whole_pci_device(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    assert observe.driver(lab_vm, FPGA) is None
    server = _create(control_plane, "fpga", "resources:FPGA=1")
    assert _device(control_plane, server, "FPGA") == FPGA

    assert observe.driver(lab_vm, FPGA) == "vfio-pci"
    console = _console_of_booted_guest(control_plane, lab_vm, server)
    assert re.search(rf"accelsched-guest: pci \S+ {FPGA_ID} ", console)
    # The device itself answered: its id, the bitwise NOT of 0x12345678, 5!
    assert re.search(r"edu \S+ id=0x010000ED live=0xEDCBA987 factorial5=0x00000078", console)

    # Somebody pulls the card out while the guest has it, and puts it back.
    observe.remove_function(lab_vm, FPGA)
    wait_for(lambda: _device_events(control_plane, server) == ["device-lost"], _TOLD_S, "the server to be told", 1.0)
    assert _shown(control_plane, server)["fault"]["message"].startswith("FPGA of resource provider ")
    [lost] = control_plane.get("/v1/devices?status=lost")["devices"]
    assert lost["consumers"] == [server]
    assert lost["inventories"]["FPGA"]["reserved"] == 1
    lab_vm.channel.check(["sh", "-c", "echo 1 >/sys/bus/pci/rescan"])
    events = ["device-back", "device-lost"]
    wait_for(lambda: _device_events(control_plane, server) == events, _TOLD_S, "the server to be told", 1.0)
    assert "fault" not in _shown(control_plane, server)

    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)
    assert observe.driver(lab_vm, FPGA) is None


def _shown(control_plane: ControlPlane, server: str) -> dict[str, Any]:
    shown: dict[str, Any] = control_plane.get(f"/compute/v2.1/servers/{server}")["server"]
    return shown


def _device_events(control_plane: ControlPlane, server: str) -> list[str]:
    """Return what a server was told about its devices, the newest first."""
    actions = control_plane.get(f"/compute/v2.1/servers/{server}/os-instance-actions")["instanceActions"]
    return [action["action"] for action in actions if action["action"].startswith("device-")]


def _accelerators(control_plane: ControlPlane, server: str) -> dict[str, str]:
    """Return the states of what was attached to a server."""
    listed = control_plane.get(f"/v1/servers/{server}/accelerators")["accelerators"]
    return {one["id"]: one["state"] for one in listed}


@pytest.mark.way("attached to a running guest", "mediated device and virtual function answer it; it lets go of both")
def test_accelerators_are_attached_to_a_running_guest_which_lets_go_of_them(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    server = _create(control_plane, "bare")
    _console_of_booted_guest(control_plane, lab_vm, server)
    console = f"/var/lib/accelsched/instances/{server}/console.log"

    def said(pattern: str) -> bool:
        return lab_vm.channel.call(["grep", "-qE", pattern, console]).returncode == 0

    # Not the FPGA: a conventional PCI function has no place in a running domain, whose free ports are PCI Express.
    for resource_class, address in (("VGPU", VGPU_ID), ("CUSTOM_NVME_VF", NVME_ID)):
        control_plane.openstack("accel", "server", "add", "accelerator", server, resource_class)
        what = f"the guest to see its {resource_class}"
        wait_for(lambda found=f" {address} ": said(found), _GUEST_S, what, interval=1.0)
        attached = lambda: set(_accelerators(control_plane, server).values()) == {"attached"}  # noqa: E731
        wait_for(attached, _GUEST_S, "it to be attached")
    assert len(_accelerators(control_plane, server)) == 2
    for answer in ("echoed=hello", rf"nvme \S+ disk=\S+ read={NVME_TEXT}"):
        wait_for(lambda answer=answer: said(answer), _GUEST_S, f"the device to answer {answer}", interval=1.0)
    assert observe.driver(lab_vm, NVME.removesuffix("0") + "1") == "vfio-pci"

    for accelerator in _accelerators(control_plane, server):
        control_plane.openstack("accel", "server", "remove", "accelerator", server, accelerator)
        gone = lambda gone=accelerator: gone not in _accelerators(control_plane, server)  # noqa: E731
        wait_for(gone, _GUEST_S, "it to be detached")
    assert observe.driver(lab_vm, NVME.removesuffix("0") + "1") is None
    assert [uuid for uuid in observe.mdevs(lab_vm) if names.is_own_mdev(uuid)] == []
    assert observe.domains(lab_vm)[server] == "running"
    count = ["grep", "-c", "pci [^ ]* gone", console]
    wait_for(
        lambda: lab_vm.channel.call(count).stdout.strip() == "2", _GUEST_S, "the guest to see both go", interval=1.0
    )
    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)


@pytest.mark.way("virtual function", "the guest's driver reads its disk; vfio-pci while in use, given back")
@pytest.mark.way(
    "mediated device on a virtual function", "the guest's driver is echoed by the device; the card's capacity counts"
)
def test_virtual_functions_are_given_whole_and_as_parents_of_mediated_devices(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    server = _create(
        *(control_plane, "functions", "group_policy=none", "resources_nvme:CUSTOM_NVME_VF=1"),
        *("resources_gpu:VGPU=1", "trait_gpu:CUSTOM_PCI_DEVICE_1B36_0010=required"),
    )
    assert _device(control_plane, server, "CUSTOM_NVME_VF") == NVME
    assert observe.driver(lab_vm, NVME.removesuffix("0") + "1") == "vfio-pci"
    assert _device(control_plane, server, "VGPU") == SRIOV_GPU
    [parent] = [parent for uuid, parent in observe.mdevs(lab_vm).items() if names.is_own_mdev(uuid)]
    assert parent == SRIOV_GPU.removesuffix("0") + "1"
    console = _console_of_booted_guest(control_plane, lab_vm, server)
    assert re.search(rf"nvme \S+ disk=\S+ read={NVME_TEXT}", console)  # by the guest's driver, DMA and interrupts
    assert "echoed=hello" in console

    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)
    assert observe.driver(lab_vm, NVME.removesuffix("0") + "1") is None
    assert lab_vm.channel.check(["ls", "/var/lib/accelsched/pci"]) == ""
