# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: ``openstack server create`` to a guest that finds its device, and back to nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from labvm import observe
from labvm.agent import FPGA_ID, VGPU_ID
from labvm.control import ControlPlane, wait_for
from labvm.machine import FPGA, HOST, NVME, NVME_TEXT, SRIOV_GPU, Machine
from stack.errors import StackError

from accelsched import names

pytestmark = pytest.mark.usefixtures("agent")

_GUEST_S = 300.0
_EVENT_S = 120.0


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
    ready = ["grep", "-q", "accelsched-guest: ready", f"/var/lib/accelsched/instances/{server}/console.log"]
    wait_for(lambda: lab_vm.channel.call(ready).returncode == 0, _GUEST_S, "the guest to have booted", interval=1.0)
    return control_plane.openstack("console", "log", "show", server)


def _assert_nothing_left(control_plane: ControlPlane, lab_vm: Machine, server: str) -> None:
    assert server not in observe.domains(lab_vm)
    assert [uuid for uuid in observe.mdevs(lab_vm) if names.is_own_mdev(uuid)] == []
    assert lab_vm.channel.check(["ls", "/var/lib/accelsched/mdevs"]) == ""
    assert server not in lab_vm.channel.check(["ls", "/var/lib/accelsched/instances"])
    assert control_plane.show("resource", "provider", "allocation", "show", server) == []
    with pytest.raises(StackError, match=r"No [Ss]erver found"):
        control_plane.show("server", "show", server)


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


def _accelerators(control_plane: ControlPlane, server: str) -> dict[str, str]:
    """Return the states of what was attached to a server."""
    listed = control_plane.get(f"/v1/servers/{server}/accelerators")["accelerators"]
    return {one["id"]: one["state"] for one in listed}


def test_accelerators_are_attached_to_a_running_guest_which_lets_go_of_them(
    control_plane: ControlPlane, lab_vm: Machine
) -> None:
    server = _create(control_plane, "plain", "note=plain")
    _console_of_booted_guest(control_plane, lab_vm, server)
    for number, resource_class in enumerate(("VGPU", "FPGA"), 1):
        control_plane.openstack("accel", "server", "add", "accelerator", server, resource_class)
        expected = ["attached"] * number
        wait_for(lambda: [*_accelerators(control_plane, server).values()] == expected, 60, "it to be attached")  # noqa: B023
    console = f"/var/lib/accelsched/instances/{server}/console.log"

    def said(pattern: str, times: int = 1) -> bool:
        found = lab_vm.channel.call(["grep", "-cE", pattern, console])
        return int(found.stdout or 0) >= times

    for pattern in ("echoed=hello", "edu [^ ]+ id=0x010000ED live=0xEDCBA987 factorial5=0x00000078"):
        wait_for(lambda: said(pattern), _GUEST_S, f"the guest to say {pattern}", interval=1.0)  # noqa: B023
    assert observe.driver(lab_vm, FPGA) == "vfio-pci"

    control_plane.openstack("server", "reboot", "--hard", "--wait", server)
    wait_for(lambda: said("accelsched-guest: ready", 2), _GUEST_S, "the guest to have booted again", interval=1.0)
    assert said("echoed=hello", 2)
    assert [*_accelerators(control_plane, server).values()] == ["attached"] * 2

    for accelerator in _accelerators(control_plane, server):
        control_plane.openstack("accel", "server", "remove", "accelerator", server, accelerator)
        wait_for(lambda: accelerator not in _accelerators(control_plane, server), _GUEST_S, "it to be gone")  # noqa: B023
    wait_for(lambda: said("pci [^ ]+ gone", 2), _GUEST_S, "the guest to say that both are gone", interval=1.0)
    assert observe.driver(lab_vm, FPGA) is None
    assert [uuid for uuid in observe.mdevs(lab_vm) if names.is_own_mdev(uuid)] == []
    assert observe.domains(lab_vm)[server] == "running"
    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)


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
    assert _device_events(control_plane, server, 1) == [("device-lost", "Error")]
    assert control_plane.get("/v1/devices?status=lost")["devices"][0]["consumers"] == [server]
    lab_vm.channel.check(["sh", "-c", "echo 1 >/sys/bus/pci/rescan"])
    assert _device_events(control_plane, server, 2) == [("device-back", "Success"), ("device-lost", "Error")]

    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)
    assert observe.driver(lab_vm, FPGA) is None


def _device_events(control_plane: ControlPlane, server: str, count: int) -> list[tuple[str, str]]:
    """Return a server's events about its devices and how they went, the newest first, once there are so many."""
    path = f"/compute/v2.1/servers/{server}/os-instance-actions"

    def listed() -> list[dict[str, Any]]:
        actions = control_plane.get(path)["instanceActions"]
        return [action for action in actions if action["action"].startswith("device-")]

    wait_for(lambda: len(listed()) >= count, _EVENT_S, f"{count} events about devices", interval=1.0)
    told = [control_plane.get(f"{path}/{action['request_id']}")["instanceAction"] for action in listed()]
    return [(action["action"], action["events"][0]["result"]) for action in told]


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
