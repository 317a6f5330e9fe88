# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole PCI functions on a fake sysfs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accelsched.agent.devices.base import DeviceError, PciAttachment
from accelsched.agent.devices.pci import PciDriver
from accelsched.agent.devices.tenures import Tenures

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


def driver(context: Any, *specs: dict[str, Any]) -> PciDriver:
    context.conf.set_override("pci_device_spec", [json.dumps(spec) for spec in specs], group="devices")
    return PciDriver(context)


def addresses(found: Any) -> list[str]:
    return [device.address for device in found]


def allocation(provider: str) -> Any:
    return {"group": "", "provider_uuid": "b", "provider_name": provider, "resources": {"FPGA": 1}}


def test_nothing_is_offered_that_the_operator_did_not_list(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    assert driver(context).discover() == []


def test_a_listed_function_is_a_device_of_its_class_with_its_traits(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    spec = {"address": "0000:03:00.*", "resource_class": "FPGA", "traits": ["CUSTOM_FAST"]}
    (device,) = driver(context, spec).discover()
    assert device.name == "node1_pci_0000_03_00_0"
    assert dict(device.inventories) == {
        "FPGA": {
            "total": 1,
            "reserved": 0,
            "min_unit": 1,
            "max_unit": 1,
            "step_size": 1,
            "allocation_ratio": 1.0,
        }
    }
    ids = {"CUSTOM_PCI_VENDOR_1234", "CUSTOM_PCI_DEVICE_1234_11E8"}
    told = {"CUSTOM_PCI_TYPE_PCI", "CUSTOM_PCIE_ROOT_0000_00", "CUSTOM_FAST", "COMPUTE_MANAGED_PCI_DEVICE"}
    assert device.traits == {*ids, *told}


@pytest.mark.parametrize(
    ("files", "traits"),
    [
        ({"numa_node": "1", "sriov_totalvfs": "8"}, {"CUSTOM_NUMA_NODE_1", "CUSTOM_PCI_TYPE_PF"}),
        ({"numa_node": "-1"}, {"CUSTOM_PCI_TYPE_PCI"}),
    ],
)
def test_a_function_tells_its_node_and_its_type(
    context: Any, sysfs: Any, files: dict[str, str], traits: set[str]
) -> None:
    path = sysfs.add_function("0000:03:00.0", group=1)
    for name, text in files.items():
        (path / name).write_text(f"{text}\n")
    (device,) = driver(context, {"address": "0000:03:00.0"}).discover()
    assert {name for name in device.traits if "NUMA" in name or "TYPE" in name} == traits


def test_without_a_class_it_is_named_after_its_ids(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", "10DE", "25b6", group=1)
    (device,) = driver(context, {"vendor_id": "10de", "product_id": "25B6"}).discover()
    assert list(device.inventories) == ["CUSTOM_PCI_10DE_25B6"]


def test_a_function_that_shares_its_iommu_group_with_an_unlisted_one_is_not_offered(
    context: Any, sysfs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    sysfs.add_function("0000:03:00.1", "8086", "1000", group=1)
    sysfs.add_function("0000:00:02.0", "1b36", "000c", pci_class="0x060400", group=1)
    listed = driver(context, {"address": "0000:03:00.0"})
    assert listed.discover() == []
    assert listed.discover() == []
    assert [record.message for record in caplog.records if "0000:03:00.1" in record.message] != []
    assert len([record for record in caplog.records if "not offered" in record.message]) == 1


def test_listed_functions_of_one_group_go_together_and_bridges_in_it_do_not_matter(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    sysfs.add_function("0000:03:00.1", group=1)
    sysfs.add_function("0000:00:02.0", "1b36", "000c", pci_class="0x060400", group=1)
    listed = driver(context, {"address": "0000:03:00.*", "resource_class": "FPGA"})
    (device,) = listed.discover()
    assert (device.address, device.inventories["FPGA"]["total"]) == ("0000:03:00.0", 1)
    given = listed.prepare(SERVER, allocation(device.name))
    assert [attachment.address for attachment in given] == ["0000:03:00.0", "0000:03:00.1"]


def test_the_audio_and_usb_of_a_graphics_card_go_with_it_unlisted_and_its_neighbour_does_not(
    context: Any, sysfs: Any
) -> None:
    sysfs.add_function("0000:41:00.1", "10de", "228b", pci_class="0x040300", group=8)
    sysfs.add_function("0000:41:00.0", "10de", "2230", pci_class="0x030000", group=7)
    sysfs.add_function("0000:41:00.2", "10de", "1ad6", pci_class="0x0c0330", group=8)
    sysfs.add_function("0000:42:00.1", "10de", "228b", pci_class="0x040300", group=9)
    listed = driver(context, {"vendor_id": "10de", "product_id": "2230", "resource_class": "PGPU"})
    (device,) = listed.discover()
    given = listed.prepare(SERVER, {**allocation(device.name), "resources": {"PGPU": 1}})
    assert [attachment.address for attachment in given] == ["0000:41:00.0", "0000:41:00.1", "0000:41:00.2"]
    assert device.name == "node1_pci_0000_41_00_0"


def test_without_an_iommu_group_and_bridges_nothing_is_offered(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=None)
    sysfs.add_function("0000:04:00.0", pci_class="0x060400", group=2)
    assert driver(context, {"address": "*"}).discover() == []


def test_a_function_with_missing_attributes_does_not_hide_the_others(context: Any, sysfs: Any) -> None:
    (sysfs.add_function("0000:02:00.0", group=1) / "vendor").unlink()
    sysfs.add_function("0000:03:00.0", group=2)
    assert addresses(driver(context, {"address": "*"}).discover()) == ["0000:03:00.0"]


def test_prepare_returns_a_managed_attachment_as_often_as_asked(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    listed = driver(context, {"address": "0000:03:00.0", "resource_class": "FPGA"})
    expected = [PciAttachment("node1_pci_0000_03_00_0", "0000:03:00.0", managed=True)]
    assert listed.prepare(SERVER, allocation("node1_pci_0000_03_00_0")) == expected
    assert listed.prepare(SERVER, allocation("node1_pci_0000_03_00_0")) == expected


def test_prepare_refuses_what_is_not_listed_or_cannot_be_isolated_any_more(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    sysfs.add_function("0000:04:00.0", group=2)
    listed = driver(context, {"address": "0000:03:00.0"})
    with pytest.raises(DeviceError, match="not listed"):
        listed.prepare(SERVER, allocation("node1_pci_0000_04_00_0"))
    sysfs.add_function("0000:03:00.1", group=1)
    with pytest.raises(DeviceError, match="IOMMU group"):
        listed.prepare(SERVER, allocation("node1_pci_0000_03_00_0"))


# --- virtual functions ----------------------------------------------------------------------------------------------

CARD = "node1_pci_0000_03_00_0"
VFS = ["0000:03:00.1", "0000:03:00.2"]
OTHER_SERVER = "aaaaaaaa-0000-4000-8000-000000000002"


@pytest.fixture
def card(sysfs: Any) -> Any:
    sysfs.add_function("0000:03:00.0", "8086", "1000", group=1)
    sysfs.add_virtual_functions("0000:03:00.0", VFS, "1001", first_group=2)
    return sysfs


def vf_allocation(amount: int = 1, group: str = "") -> Any:
    return {**allocation(CARD), "group": group, "resources": {"CUSTOM_PCI_8086_1001": amount}}


def given(listed: PciDriver, server: str, told: Any) -> list[str]:
    return [attachment.address for attachment in listed.prepare(server, told)]


@pytest.mark.parametrize("spec", [{"vendor_id": "8086", "product_id": "1001"}, {"address": "0000:03:00.0"}])
def test_virtual_functions_are_counted_at_their_card_and_each_is_given_once(
    context: Any, card: Any, spec: dict[str, str]
) -> None:
    listed = driver(context, spec)
    (device,) = listed.discover()
    assert (device.name, device.address) == (CARD, "0000:03:00.0")
    assert {name: told["total"] for name, told in device.inventories.items()} == {"CUSTOM_PCI_8086_1001": 2}
    assert "CUSTOM_PCI_TYPE_VF" in device.traits
    assert given(listed, SERVER, vf_allocation()) == [VFS[0]]
    assert given(listed, OTHER_SERVER, vf_allocation()) == [VFS[1]]
    assert given(driver(context, spec), SERVER, vf_allocation()) == [VFS[0]]  # after a restart too
    with pytest.raises(DeviceError, match="in use by another server"):
        listed.prepare("aaaaaaaa-0000-4000-8000-000000000003", vf_allocation())
    assert [(device.mark, device.server_uuid) for device in listed.present()] == [
        (VFS[0], SERVER),
        (VFS[1], OTHER_SERVER),
    ]
    listed.release(SERVER)
    assert given(listed, OTHER_SERVER, vf_allocation(group="1")) == [VFS[0]]


def test_one_that_somebody_else_seems_to_have_is_given_last(context: Any, card: Any) -> None:
    card.bind(VFS[0], "vfio-pci")
    listed = driver(context, {"address": "0000:03:00.0"})
    assert given(listed, SERVER, vf_allocation(2)) == [VFS[1], VFS[0]]


def test_a_card_and_its_virtual_functions_are_never_both_handed_out(context: Any, card: Any) -> None:
    both = {"address": "0000:03:00.*", "resource_class": "FPGA"}
    listed = driver(context, both)
    assert [device.inventories["FPGA"]["total"] for device in listed.discover()] == [2]
    for number, address in enumerate(VFS):
        (card.functions / address).rename(card.root / address)
        (card.functions / "0000:03:00.0" / f"virtfn{number}").unlink()
    assert [(device.name, device.inventories["FPGA"]["total"]) for device in listed.discover()] == [(CARD, 1)]
    assert given(listed, SERVER, allocation(CARD)) == ["0000:03:00.0"]
    for number, address in enumerate(VFS):  # somebody enables them while a server has the card
        (card.root / address).rename(card.functions / address)
        (card.functions / "0000:03:00.0" / f"virtfn{number}").symlink_to(f"../{address}")
    assert [(device.name, device.inventories["FPGA"]["total"]) for device in listed.discover()] == [(CARD, 1)]
    with pytest.raises(DeviceError, match="in use by another server"):
        listed.prepare(OTHER_SERVER, allocation(CARD))


def test_virtual_functions_that_share_the_group_of_their_card_are_not_offered(
    context: Any, sysfs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sysfs.add_function("0000:03:00.0", "8086", "1000", group=1)
    sysfs.add_virtual_functions("0000:03:00.0", [VFS[0]], "1001", first_group=1)
    assert driver(context, {"address": "0000:03:00.*"}).discover() == []
    assert "0000:03:00.0 has 1 virtual functions" in caplog.text


def test_virtual_functions_of_one_card_are_told_of_alike(
    context: Any, card: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listed = driver(context, {"address": VFS[0], "traits": "CUSTOM_FAST"}, {"address": VFS[1], "traits": "slow"})
    (device,) = listed.discover()
    assert "CUSTOM_FAST" in device.traits
    assert "CUSTOM_SLOW" not in device.traits
    assert device.inventories["CUSTOM_PCI_8086_1001"]["total"] == 1
    assert "same traits" in caplog.text
    assert given(listed, SERVER, vf_allocation()) == [VFS[0]]
    with pytest.raises(DeviceError):
        listed.prepare(OTHER_SERVER, vf_allocation())


def test_what_a_server_has_and_is_gone_is_not_exchanged_for_another(context: Any, card: Any) -> None:
    listed = driver(context, {"address": "0000:03:00.0"})
    given(listed, SERVER, vf_allocation())
    (card.functions / VFS[0]).unlink()
    with pytest.raises(DeviceError, match=f"{VFS[0]}, which the server has, is not there"):
        listed.prepare(SERVER, vf_allocation())


# --- what the operator says of a device -----------------------------------------------------------------------------


def test_unmanaged_functions_need_a_driver_and_are_attached_as_they_are(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    listed = driver(context, {"address": "0000:03:00.0", "managed": "no", "live_migratable": "yes"})
    assert listed.discover() == []
    sysfs.bind("0000:03:00.0", "mlx5_vfio_pci")
    (device,) = listed.discover()
    assert "COMPUTE_MANAGED_PCI_DEVICE" not in device.traits
    assert "HW_PCI_LIVE_MIGRATABLE" in device.traits
    told = {**allocation(CARD), "resources": {"CUSTOM_PCI_1234_11E8": 1}}
    assert listed.prepare(SERVER, told) == [PciAttachment(CARD, "0000:03:00.0", managed=False)]


def test_what_the_host_itself_uses_is_not_offered(
    context: Any, sysfs: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = sysfs.add_function("0000:03:00.0", group=1)
    (network / "net/eth0").mkdir(parents=True)
    (network / "net/eth0/operstate").write_text("up\n")
    disk = sysfs.add_function("0000:04:00.0", pci_class="0x010802", group=2) / "nvme/nvme0/nvme0n1"
    (disk / "nvme0n1p1").mkdir(parents=True)
    (disk / "nvme0n1p1/dev").write_text("259:1\n")
    (disk / "nvme0n1p1/subsystem").symlink_to("../../class/block")
    console = sysfs.add_function("0000:05:00.0", pci_class="0x030000", group=3)
    (console / "boot_vga").write_text("1\n")
    sysfs.bind("0000:05:00.0", "nouveau")
    monkeypatch.setattr("accelsched.agent.devices.functions.mounted_devices", lambda: frozenset({"259:1"}))
    listed = driver(context, {"address": "*"})
    assert listed.discover() == []
    for told in ("network interface eth0, which is up", "nvme0n1p1, which is mounted", "console of this host"):
        assert told in caplog.text
    (network / "net/eth0/operstate").write_text("down\n")
    (disk / "nvme0n1p1/dev").write_text("259:2\n")
    sysfs.bind("0000:05:00.0", "vfio-pci")
    assert addresses(listed.discover()) == ["0000:05:00.0", "0000:03:00.0", "0000:04:00.0"]


ONCE = {"address": "0000:03:00.0", "resource_class": "FPGA", "one_time_use": "yes"}


def reserved(listed: PciDriver) -> int:
    (device,) = listed.discover()
    assert "HW_PCI_ONE_TIME_USE" in device.traits
    count: int = device.inventories["FPGA"]["reserved"]
    return count


@pytest.fixture
def cleaner(context: Any, tmp_path: Path) -> Path:
    """A command that writes down its arguments and ends as the file ``status`` beside it says."""
    script = tmp_path / "clean"
    script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\necho wiping\nexit $(cat {tmp_path}/status)\n')
    script.chmod(0o755)
    (tmp_path / "status").write_text("0")
    context.conf.set_override("cleaning_command", f"{script} --full", group="devices")
    return tmp_path


def test_a_device_for_one_use_is_reserved_from_its_use_until_it_was_cleaned(
    context: Any, sysfs: Any, cleaner: Path
) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    listed = driver(context, ONCE)
    assert reserved(listed) == 0
    listed.prepare(SERVER, allocation(CARD))
    assert reserved(listed) == 1
    listed.release(SERVER)
    assert reserved(driver(context, ONCE)) == 1
    with pytest.raises(DeviceError, match="not clean yet"):
        listed.prepare(OTHER_SERVER, allocation(CARD))
    (waiting,) = listed.present()
    assert (waiting.mark, waiting.server_uuid) == ("0000:03:00.0", None)  # so the agent has it removed
    listed.remove(waiting.mark)
    assert (cleaner / "calls").read_text() == "--full 0000:03:00.0\n"
    assert reserved(listed) == 0
    assert listed.present() == []
    kept = Tenures(context.state_path).cleanings()["0000:03:00.0"]
    assert (kept["status"], kept["output"]) == (0, "wiping\n")
    listed.prepare(OTHER_SERVER, allocation(CARD))


def test_a_cleaning_that_failed_is_not_repeated_and_leaves_the_device_reserved(
    context: Any, sysfs: Any, cleaner: Path
) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    listed = driver(context, ONCE)
    listed.prepare(SERVER, allocation(CARD))
    listed.release(SERVER)
    (cleaner / "status").write_text("3")
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"ended with status 3: wiping"):
            listed.remove("0000:03:00.0")
    assert (cleaner / "calls").read_text().count("\n") == 1
    assert reserved(listed) == 1
    assert Tenures(context.state_path).cleanings()["0000:03:00.0"]["status"] == 3


def test_a_server_that_got_smaller_keeps_its_first_devices_and_the_others_are_cleaned(context: Any, card: Any) -> None:
    listed = driver(context, {"vendor_id": "8086", "product_id": "1001", "one_time_use": True})
    first, second = given(listed, SERVER, vf_allocation(2))
    keep = listed.marks(SERVER, vf_allocation(1))
    assert keep == {first}
    listed.release(SERVER, keep)
    assert {device.mark: device.server_uuid for device in listed.present()} == {first: SERVER, second: None}


def test_the_server_that_is_built_anew_has_its_device_again_uncleaned(context: Any, sysfs: Any, cleaner: Path) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    listed = driver(context, ONCE)
    listed.prepare(SERVER, allocation(CARD))
    listed.release(SERVER)
    assert listed.marks(SERVER, allocation(CARD)) == {"0000:03:00.0"}  # so the agent does not have it removed
    assert listed.marks(OTHER_SERVER, allocation(CARD)) == frozenset()
    assert given(listed, SERVER, allocation(CARD)) == ["0000:03:00.0"]
    assert [device.server_uuid for device in listed.present()] == [SERVER]


def test_without_a_command_a_used_device_waits_for_its_operator(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    listed = driver(context, ONCE)
    listed.prepare(SERVER, allocation(CARD))
    listed.release(SERVER)
    with pytest.raises(DeviceError, match=r"--cleaned 0000:03:00\.0"):
        listed.remove("0000:03:00.0")
    assert reserved(listed) == 1
