# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The lab's machine is what the other tests take it for: real drivers, real libvirt, nothing of them simulated."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from labvm import observe
from labvm.machine import FPGA, GPUS, OUTER, Machine


def _sysfs(lab_vm: Machine, path: str) -> str:
    return lab_vm.channel.check(["cat", f"/sys/bus/pci/devices/{path}"]).strip()


@pytest.mark.parametrize("address", GPUS)
def test_each_gpu_makes_mediated_devices_of_its_own(lab_vm: Machine, address: str) -> None:
    assert _sysfs(lab_vm, f"{address}/mdev_supported_types/labgpu-1/device_api") == "vfio-pci"

    def available() -> dict[str, int]:
        return {gpu: observe.available_instances(lab_vm, gpu, "labgpu-1") for gpu in GPUS}

    before, uuid = available(), str(uuid4())
    observe.make_mdev(lab_vm, uuid, address, "labgpu-2")
    try:
        assert available() == {**before, address: before[address] - 2}
        assert observe.mdevs(lab_vm)[uuid] == address
    finally:
        observe.remove_mdev(lab_vm, uuid)
    assert available() == before


def test_the_fpga_has_no_driver_and_an_iommu_group_of_its_own(lab_vm: Machine) -> None:
    assert (_sysfs(lab_vm, f"{FPGA}/vendor"), _sysfs(lab_vm, f"{FPGA}/device")) == ("0x1234", "0x11e8")
    assert observe.driver(lab_vm, FPGA) is None
    assert lab_vm.channel.check(["ls", f"/sys/bus/pci/devices/{FPGA}/iommu_group/devices"]).split() == [FPGA]


def test_libvirt_sees_the_gpus_as_parents_of_mediated_devices(lab_vm: Machine) -> None:
    names = lab_vm.channel.check(["virsh", "nodedev-list", "--cap", "mdev_types"]).split()
    functions = ["pci_0000_05_00_1", "pci_0000_05_00_2"]
    assert sorted(names) == ["pci_0000_01_00_0", "pci_0000_02_00_0", *functions]


def test_nested_guests_can_run_by_emulated_hardware_virtualization(lab_vm: Machine) -> None:
    capabilities = lab_vm.channel.check(["virsh", "domcapabilities", "--virttype", "kvm"])
    assert "<domain>kvm</domain>" in capabilities


def test_the_machine_reaches_this_machines_loopback_and_nothing_outside_else(lab_vm: Machine) -> None:
    assert lab_vm.channel.call(["bash", "-c", f"exec 3<>/dev/tcp/{OUTER}/{lab_vm.channel.port}"]).returncode == 0
    routes = lab_vm.channel.check(["ip", "-o", "route"]).splitlines()
    assert {route.split()[0] for route in routes} == {"10.0.2.0/24"}


def test_what_is_written_inside_never_reaches_this_machines_files(lab_vm: Machine) -> None:
    name = f"/var/tmp/lab-{uuid4()}"
    lab_vm.channel.check(["touch", name])
    lab_vm.channel.check(["test", "-e", name])
    assert not Path(name).exists()
