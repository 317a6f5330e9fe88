# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a host's devices, for sysfs trees of several kinds of hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accelsched.agent.devices.pci import PciDriver
from accelsched.cmd import agent_devices


def printed(capsys: pytest.CaptureFixture[str], context: Any, *arguments: str) -> str:
    """Run ``accelsched-agent devices`` on the fake tree and return what it prints."""
    file = Path(context.conf.state_path).parent / "accelsched.conf"
    specs = "".join(f"pci_device_spec = {text}\n" for text in context.conf.devices.pci_device_spec)
    file.write_text(
        f"[DEFAULT]\nstate_path = {context.conf.state_path}\n"
        f"[devices]\nsysfs_root = {context.conf.devices.sysfs_root}\n{specs}"
    )
    assert agent_devices.main("accelsched-agent devices", ["--config-file", str(file), *arguments]) == 0
    return capsys.readouterr().out


def test_a_host_without_devices_says_so(context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sysfs.add_function("0000:00:01.0", pci_class="0x020000", group=1)
    assert printed(capsys, context).startswith("No GPU")


def test_each_device_has_its_ways_and_for_each_closed_one_reason_and_remedy(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sysfs.add_function("0000:41:00.0", "10de", "2230", pci_class="0x030000", group=1)
    sysfs.add_function("0000:41:00.1", "10de", "228b", pci_class="0x040300", group=1)
    sysfs.add_function("0000:42:00.0", "10ee", "5000", pci_class="0x120000", group=None)
    sysfs.add_function("0000:43:00.0", "8086", "1000", pci_class="0x020000", group=3)
    sysfs.add_virtual_functions("0000:43:00.0", ["0000:43:10.0", "0000:43:10.1"], "1001", first_group=4)
    sysfs.add_function("0000:44:00.0", "8086", "1000", pci_class="0x020000", group=6)
    sysfs.add_virtual_functions("0000:44:00.0", ["0000:44:10.0"], "1001", first_group=7)
    sysfs.bind("0000:41:00.0", "nouveau")
    context.conf.set_override(
        "pci_device_spec",
        ['{"address": "0000:42:00.0"}', '{"address": "0000:43:00.0"}', '{"address": "0000:44:00.*"}'],
        group="devices",
    )
    assert (
        printed(capsys, context)
        == """\
DEVICE        WHAT                   DRIVER   WAY                OFFERED AS
0000:41:00.0  GPU 10de:2230          nouveau  vGPUs              -
              not offered: its driver is nouveau, not NVIDIA's vGPU manager
              remedy: for vGPUs, install the host driver of NVIDIA's vGPU software
                                              whole              -
              not offered: it is not listed in [devices] pci_device_spec
              remedy: to hand it out: pci_device_spec = {"address": "0000:41:00.0"}
0000:42:00.0  accelerator 10ee:5000  -        whole              -
              not offered: it has no IOMMU group (is the IOMMU enabled in firmware and kernel?)
              remedy: enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or amd_iommu=on
0000:43:00.0  SR-IOV card 8086:1000  -        virtual functions  2 CUSTOM_PCI_8086_1001  0000:43:10.0, 0000:43:10.1
0000:44:00.0  SR-IOV card 8086:1000  -        whole              -
              not offered: 0000:44:00.0 has 1 virtual functions
              remedy: list those, or remove them: echo 0 > /sys/bus/pci/devices/0000:44:00.0/sriov_numvfs
"""
    )


def test_json_has_more_to_tell_and_the_operator_takes_a_device_back(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    spec = {"address": "0000:03:00.0", "resource_class": "FPGA", "one_time_use": True}
    context.conf.set_override("pci_device_spec", [json.dumps(spec)], group="devices")
    driver = PciDriver(context)
    allocation: Any = {
        "group": "",
        "provider_uuid": "b",
        "provider_name": "node1_pci_0000_03_00_0",
        "resources": {"FPGA": 1},
    }
    driver.prepare("aaaaaaaa-0000-4000-8000-000000000001", allocation)
    driver.release("aaaaaaaa-0000-4000-8000-000000000001")
    told = json.loads(printed(capsys, context, "--json"))
    (device,) = told["devices"]
    assert (device["device"], device["ways"][0]["offers"]) == ("0000:03:00.0", {"FPGA": 1})
    assert told["in_use"]["0000:03:00.0"]["used"] is True
    assert "reserved until it is clean" in printed(capsys, context)
    printed(capsys, context, "--cleaned", "0000:03:00.0")
    assert driver.present() == []
    assert agent_devices.main("accelsched-agent devices", ["--cleaned", "0000:03:00.0"]) == 2


def gpu(context: Any, sysfs: Any, driver: str | None = "nvidia", **files: str) -> Path:
    path: Path = sysfs.add_function("0000:41:00.0", "10de", "2230", pci_class="0x030200", group=1)
    sysfs.bind("0000:41:00.0", driver)
    for name, text in files.items():
        (path / name).write_text(f"{text}\n")
    return path


def ways(capsys: pytest.CaptureFixture[str], context: Any) -> dict[str, Any]:
    (device,) = json.loads(printed(capsys, context, "--json"))["devices"]
    return {way["how"]: way["reason"] or way["offers"] for way in device["ways"]}


@pytest.mark.parametrize(
    ("driver", "files", "told"),
    [
        (None, {}, "its driver is none, not NVIDIA's vGPU manager"),
        ("nvidia", {}, "no vGPU manager"),
        ("nvidia", {"sriov_totalvfs": "16"}, "could have 16 virtual functions and has none"),
    ],
)
def test_a_gpu_that_is_not_shared_tells_why(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str], driver: str | None, files: Any, told: str
) -> None:
    gpu(context, sysfs, driver, **files)
    assert told in ways(capsys, context)["vGPUs"]


def test_a_gpu_that_is_shared_tells_how(context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sysfs.add_mdev_parent(gpu(context, sysfs), {"nvidia-2": 4})
    assert ways(capsys, context)["vGPUs by mdev"] == {"VGPU": 4}


def test_a_gpu_given_to_guests_whole_is_not_told_to_become_shared(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu(context, sysfs, "vfio-pci")
    assert list(ways(capsys, context)) == ["whole"]
