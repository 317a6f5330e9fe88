# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a host's devices, for sysfs trees of several kinds of hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fpga_cards
import pytest

from accelsched.agent.devices.pci import PciDriver
from accelsched.cmd import agent_devices


def printed(capsys: pytest.CaptureFixture[str], context: Any, *arguments: str) -> str:
    """Run ``accelsched-agent devices`` on the fake tree and return what it prints."""
    file = Path(context.conf.state_path).parent / "accelsched.conf"
    specs = "".join(f"pci_device_spec = {text}\n" for text in context.conf.devices.pci_device_spec)
    file.write_text(
        f"[DEFAULT]\nstate_path = {context.conf.state_path}\n"
        f"[agent]\ndevice_drivers = {','.join(context.conf.agent.device_drivers)}\nhost = node1\n"
        f"[devices]\nsysfs_root = {context.conf.devices.sysfs_root}\n"
        f"enabled_mdev_types = {','.join(context.conf.devices.enabled_mdev_types)}\n{specs}"
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
DEVICE        WHAT                   DRIVER   WAY                    OFFERED AS
0000:41:00.0  GPU 10de:2230          nouveau  vGPUs                  -
              not offered: its driver is nouveau, not NVIDIA's vGPU manager
              remedy: for vGPUs, install the host driver of NVIDIA's vGPU software
                                              whole                  -
              not offered: it is not listed in [devices] pci_device_spec
              remedy: to hand it out: pci_device_spec = {"address": "0000:41:00.0"}
0000:42:00.0  accelerator 10ee:5000  -        FPGA region by xilinx  -
              not offered: no driver of XRT's is bound to it
              remedy: install XRT on this host (drivers xclmgmt and xocl)
                                              whole                  -
              not offered: it has no IOMMU group (is the IOMMU enabled in firmware and kernel?)
              remedy: enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or amd_iommu=on
0000:43:00.0  SR-IOV card 8086:1000  -        virtual functions      2 CUSTOM_PCI_8086_1001  0000:43:10.0, 0000:43:10.1
0000:44:00.0  SR-IOV card 8086:1000  -        whole                  -
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


def told(capsys: pytest.CaptureFixture[str], context: Any, address: str) -> dict[str, tuple[Any, str | None]]:
    """Return of each way of a device what it offers or else why it does not, and the remedy."""
    (device,) = [one for one in json.loads(printed(capsys, context, "--json"))["devices"] if one["device"] == address]
    return {way["how"]: (way["reason"] or way["offers"], way["remedy"]) for way in device["ways"]}


CARD = "0000:41:00.0"
LISTED = '{"address": "0000:41:00.0"}'


def used_by_the_host(sysfs: Any) -> None:
    interface = sysfs.add_function(CARD, group=1) / "net/eth0"
    interface.mkdir(parents=True)
    (interface / "operstate").write_text("up\n")


def beside_a_stranger(sysfs: Any) -> None:
    for address in (CARD, "0000:41:00.1"):
        sysfs.add_function(address, group=1)


def beside_a_bridge(sysfs: Any) -> None:
    sysfs.add_function(CARD, group=1)
    sysfs.add_function("0000:40:01.0", pci_class="0x060400", group=1)  # between PCI buses: no matter
    sysfs.bind("0000:40:01.0", "pcieport")
    sysfs.add_function("0000:40:1f.0", pci_class="0x060100", group=1)
    sysfs.bind("0000:40:1f.0", "lpc_ich")


@pytest.mark.parametrize(
    ("make", "spec", "reason", "remedy"),
    [
        (lambda sysfs: sysfs.add_function(CARD, group=None), LISTED, "no IOMMU group", "VT-d or AMD-Vi"),
        (used_by_the_host, LISTED, "this host uses 0000:41:00.0: it is the network interface eth0", "let go of it"),
        (beside_a_stranger, LISTED, "its IOMMU group also holds 0000:41:00.1, not listed", "list those too"),
        (beside_a_bridge, LISTED, "shared with bridge 0000:40:1f.0, which lpc_ich drives", "another group|slot|unbind"),
        (
            lambda sysfs: sysfs.add_function(CARD, pci_class="0x060400", group=1),
            LISTED,
            "it is a bridge",
            "only what is behind it",
        ),
        (
            lambda sysfs: sysfs.add_function(CARD, group=1),
            '{"address": "0000:41:00.0", "managed": "no"}',
            "no driver is bound to it",
            "bind its VFIO driver",
        ),
        (lambda sysfs: sysfs.add_function(CARD, pci_class="0x120000", group=1), "", "not listed", "to hand it out"),
    ],
)
def test_a_function_that_cannot_be_handed_out_tells_why_and_what_to_do(
    context: Any,
    sysfs: Any,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Any], None],
    spec: str,
    reason: str,
    remedy: str,
) -> None:
    make(sysfs)
    context.conf.set_override("pci_device_spec", [spec] if spec else [], group="devices")
    found = told(capsys, context, CARD)["whole"]
    assert reason in found[0]
    assert re.search(remedy, str(found[1]))


def test_a_gpu_without_a_type_that_may_be_used_is_told_those_that_it_has(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sysfs.add_mdev_parent(gpu(context, sysfs), {"nvidia-2": 4, "nvidia-10": 2})
    context.conf.set_override("enabled_mdev_types", ["nvidia-99"], group="devices")
    assert told(capsys, context, CARD)["vGPUs by mdev"] == (
        "it supports no type of [devices] enabled_mdev_types",
        "add one of its own there: nvidia-10, nvidia-2",
    )


def test_regions_of_fpgas_are_shown_with_what_is_in_them_or_why_they_are_not_offered(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fpga_cards.add_dfl_card(sysfs.root, CARD)
    fpga_cards.add_dfl_card(sysfs.root, "0000:42:00.0", ports=2)
    for address in (CARD, "0000:42:00.0"):
        (sysfs.functions / address / "class").write_text("0x120000\n")
    assert told(capsys, context, CARD)["FPGA region by dfl"] == (
        "device driver dfl is not enabled",
        "add dfl to [agent] device_drivers",
    )
    context.conf.set_override("device_drivers", ["mdev", "pci", "dfl"], group="agent")
    assert told(capsys, context, CARD)["FPGA region by dfl"] == ({"FPGA": 1}, None)
    reason, remedy = told(capsys, context, "0000:42:00.0")["FPGA region by dfl"]
    assert "it has 2 ports" in reason
    assert "pci_device_spec" in str(remedy)
    assert f"interface {fpga_cards.INTERFACE}, function {fpga_cards.FOUND}" in printed(capsys, context)


def test_an_alveo_card_without_its_drivers_is_told_to_get_them(
    context: Any, sysfs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sysfs.add_function(CARD, "10ee", "5000", pci_class="0x120000", group=1)
    reason, remedy = told(capsys, context, CARD)["FPGA region by xilinx"]
    assert (reason, "install XRT" in str(remedy)) == ("no driver of XRT's is bound to it", True)
