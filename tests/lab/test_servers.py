# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: ``openstack server create`` to a guest that finds its device, and back to nothing."""

from __future__ import annotations

import re

import pytest
from labvm import observe
from labvm.agent import FPGA_ID, VGPU_ID
from labvm.control import ControlPlane, wait_for
from labvm.machine import FPGA, HOST, NVME, NVME_TEXT, SRIOV_GPU, Machine
from stack.errors import StackError

from accelsched import names

pytestmark = pytest.mark.usefixtures("agent")

_GUEST_S = 300.0


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

    control_plane.openstack("server", "delete", "--wait", server)
    _assert_nothing_left(control_plane, lab_vm, server)
    assert observe.driver(lab_vm, FPGA) is None


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
