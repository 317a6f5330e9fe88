# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Mediated devices on a fake sysfs; the real kernel's behaviour is the lab's to prove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accelsched import names
from accelsched.agent.devices.base import DeviceError, MdevAttachment
from accelsched.agent.devices.mdev import MdevDriver

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
GPU = "0000:41:00.0"


@pytest.fixture
def gpu(sysfs: Any) -> Path:
    path: Path = sysfs.add_function(GPU, "10de", "25b6", group=7)
    sysfs.add_mdev_parent(path, {"nvidia-2": 4, "nvidia-10": 2})
    return path


def allocation(amount: int = 1, group: str = "", provider: str = "node1_pci_0000_41_00_0") -> Any:
    return {
        "group": group,
        "provider_uuid": "bbbbbbbb-0000-4000-8000-000000000001",
        "provider_name": provider,
        "resources": {"VGPU": amount},
    }


def existing(sysfs: Any) -> set[str]:
    return {path.name for path in sysfs.mdevs.iterdir()}


def test_a_gpu_is_offered_with_the_first_type_by_name_when_none_is_enabled(context: Any, gpu: Path) -> None:
    (device,) = MdevDriver(context).discover()
    assert device.name == "node1_pci_0000_41_00_0"
    assert device.address == GPU
    assert device.inventories["VGPU"]["total"] == 2
    assert device.traits == {
        "CUSTOM_VGPU_TYPE_NVIDIA_10",
        "CUSTOM_PCI_VENDOR_10DE",
        "CUSTOM_PCI_DEVICE_10DE_25B6",
        "CUSTOM_PCIE_ROOT_0000_00",
    }


def test_enabled_types_are_preferred_in_their_order(context: Any, gpu: Path) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-99", "nvidia-2"], group="devices")
    (device,) = MdevDriver(context).discover()
    assert "CUSTOM_VGPU_TYPE_NVIDIA_2" in device.traits
    assert device.inventories["VGPU"]["total"] == 4


def test_a_gpu_that_supports_no_enabled_type_is_not_offered(context: Any, gpu: Path) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-99"], group="devices")
    assert MdevDriver(context).discover() == []


def test_a_virtual_parent_is_offered_too_and_other_apis_than_vfio_pci_are_not(context: Any, sysfs: Any) -> None:
    sysfs.add_mdev_parent(sysfs.root / "devices/virtual/mtty/mtty", {"mtty-2": 12})
    sysfs.add_mdev_parent(sysfs.root / "devices/css0/0.0.0313", {"vfio_ccw-io": 1}, device_api="vfio-ccw")
    (device,) = MdevDriver(context).discover()
    assert device.name == "node1_mdev_mtty"
    assert device.address is None


def test_one_broken_parent_does_not_hide_the_others(context: Any, sysfs: Any, gpu: Path) -> None:
    other = sysfs.add_function("0000:42:00.0", group=8)
    sysfs.add_mdev_parent(other, {"nvidia-10": 1})
    (other / "mdev_supported_types/nvidia-10/available_instances").write_text("not a number\n")
    assert [device.address for device in MdevDriver(context).discover()] == [GPU]


def test_the_inventory_stays_the_same_while_devices_are_made(context: Any, sysfs: Any, gpu: Path) -> None:
    driver = MdevDriver(context)
    before = driver.discover()
    driver.prepare(SERVER, allocation(2))
    assert driver.discover() == before


def test_prepare_makes_one_device_a_unit_and_repeating_it_makes_no_more(context: Any, sysfs: Any, gpu: Path) -> None:
    driver = MdevDriver(context)
    first = driver.prepare(SERVER, allocation(2))
    assert driver.prepare(SERVER, allocation(2)) == first
    assert first == [
        MdevAttachment("node1_pci_0000_41_00_0", names.mdev_uuid(SERVER, allocation()["provider_uuid"], "", index))
        for index in range(2)
    ]
    assert existing(sysfs) == {attachment.uuid for attachment in first if isinstance(attachment, MdevAttachment)}


def test_release_removes_a_servers_devices_and_no_others(context: Any, sysfs: Any, gpu: Path) -> None:
    driver = MdevDriver(context)
    driver.prepare(SERVER, allocation(group="1"))
    driver.prepare("aaaaaaaa-0000-4000-8000-000000000002", allocation(group="1"))
    driver.release(SERVER)
    assert [device.server_uuid for device in driver.present()] == ["aaaaaaaa-0000-4000-8000-000000000002"]
    driver.release(SERVER)


def test_the_journal_is_written_before_the_device_is_made(
    context: Any, sysfs: Any, gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = MdevDriver(context)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("accelsched.agent.devices.sysfs.write", killed)
    with pytest.raises(KeyboardInterrupt):
        driver.prepare(SERVER, allocation())
    assert [device.server_uuid for device in MdevDriver(context).present()] == [SERVER]
    driver.release(SERVER)
    assert driver.present() == []


def test_after_a_reboot_the_journal_still_knows_and_prepare_makes_the_same_device_again(
    context: Any, sysfs: Any, gpu: Path
) -> None:
    driver = MdevDriver(context)
    first = driver.prepare(SERVER, allocation())
    sysfs.remove_mdev(next(iter(existing(sysfs))))
    assert [device.server_uuid for device in driver.present()] == [SERVER]
    assert driver.prepare(SERVER, allocation()) == first


def test_a_gpu_keeps_the_type_of_what_it_carries_though_another_is_enabled_and_the_host_was_rebooted(
    context: Any, sysfs: Any, gpu: Path
) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-2"], group="devices")
    MdevDriver(context).prepare(SERVER, allocation())
    context.conf.set_override("enabled_mdev_types", ["nvidia-10"], group="devices")
    sysfs.remove_mdev(next(iter(existing(sysfs))))
    rebooted = MdevDriver(context)
    assert "CUSTOM_VGPU_TYPE_NVIDIA_2" in rebooted.discover()[0].traits
    rebooted.prepare(SERVER, allocation())
    (device,) = sysfs.mdevs.iterdir()
    assert (device / "mdev_type").resolve().name == "nvidia-2"
    rebooted.release(SERVER)
    assert "CUSTOM_VGPU_TYPE_NVIDIA_10" in rebooted.discover()[0].traits


def test_a_whole_host_that_is_booted_again_gets_every_device_back_also_when_its_gpus_come_late(
    context: Any, sysfs: Any, gpu: Path
) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-2", "nvidia-10"], group="devices")
    other = sysfs.add_function("0000:42:00.0", "10de", "25b6", group=8)
    sysfs.add_mdev_parent(other, {"nvidia-2": 4, "nvidia-10": 2})
    wanted = {
        SERVER: {**allocation(), "resources": {"CUSTOM_VGPU_NVIDIA_2": 2}},
        "aaaaaaaa-0000-4000-8000-000000000002": {
            **allocation(provider="node1_pci_0000_42_00_0"),
            "resources": {"CUSTOM_VGPU_NVIDIA_10": 1},
        },
    }
    driver = MdevDriver(context)
    before = {server: driver.prepare(server, some) for server, some in wanted.items()}
    there = {path.name: (path / "mdev_type").resolve() for path in sysfs.mdevs.iterdir()}
    assert len(there) == 3
    for uuid in there:  # what a boot leaves of sysfs
        sysfs.remove_mdev(uuid)
    for parent in list(sysfs.mdev_bus.iterdir()):
        parent.rename(sysfs.root / parent.name)

    booted = MdevDriver(context)
    owners = {device.mark: device.server_uuid for device in booted.present()}
    assert set(owners) == set(there)
    assert set(owners.values()) == set(wanted)  # nobody's would be removed
    for server, some in wanted.items():
        with pytest.raises(DeviceError, match="not on this host any more"):
            booted.prepare(server, some)
    assert set(booted.present()) == set(driver.present())
    for parent in (GPU, "0000:42:00.0"):  # its driver is loaded at last
        (sysfs.root / parent).rename(sysfs.mdev_bus / parent)
    assert {server: booted.prepare(server, some) for server, some in wanted.items()} == before
    assert {path.name: (path / "mdev_type").resolve() for path in sysfs.mdevs.iterdir()} == there


def test_a_device_without_our_mark_is_neither_seen_nor_removed_nor_counted(context: Any, sysfs: Any, gpu: Path) -> None:
    stranger = "83b8f4f2-509f-4ef3-8e2a-0d29bfe5f6a1"
    sysfs.add_mdev(gpu / "mdev_supported_types/nvidia-10", stranger)
    driver = MdevDriver(context)
    assert driver.present() == []
    with pytest.raises(ValueError, match="mark"):
        driver.remove(stranger)
    assert existing(sysfs) == {stranger}
    assert driver.discover()[0].inventories["VGPU"]["total"] == 1


def test_our_device_without_a_journal_entry_is_nobodys_and_can_be_matched_by_its_mark(
    context: Any, sysfs: Any, gpu: Path
) -> None:
    driver = MdevDriver(context)
    (mark,) = driver.marks(SERVER, allocation())
    sysfs.add_mdev(gpu / "mdev_supported_types/nvidia-10", mark)
    (device,) = driver.present()
    assert (device.mark, device.server_uuid) == (mark, None)


def test_a_damaged_journal_entry_is_nobodys(context: Any, gpu: Path) -> None:
    driver = MdevDriver(context)
    (mark,) = driver.marks(SERVER, allocation())
    (context.state_path / "mdevs").mkdir()
    for text in ("", "[]", json.dumps({"server_uuid": "s"})):
        (context.state_path / "mdevs" / mark).write_text(text)
        assert [device.server_uuid for device in driver.present()] == [None]


def test_an_unknown_provider_and_a_resource_that_is_no_vgpu_are_refused(context: Any, gpu: Path) -> None:
    driver = MdevDriver(context)
    with pytest.raises(DeviceError, match="not on this host"):
        driver.prepare(SERVER, allocation(provider="node1_pci_0000_99_00_0"))
    with pytest.raises(DeviceError, match="FPGA"):
        driver.prepare(SERVER, {**allocation(), "resources": {"FPGA": 1}})


def test_a_refusal_of_the_kernel_names_the_gpu_and_the_type(context: Any, gpu: Path) -> None:
    with pytest.raises(DeviceError, match=r"0000:41:00\.0 .* nvidia-10: No space left"):
        MdevDriver(context).prepare(SERVER, allocation(3))


def test_a_device_that_the_kernel_says_exists_is_the_one_we_made(
    context: Any, sysfs: Any, gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = MdevDriver(context)
    first = driver.prepare(SERVER, allocation())
    monkeypatch.setattr("pathlib.Path.exists", lambda _path: False)  # it appeared between the look and the write
    assert driver.prepare(SERVER, allocation()) == first


# --- several types on one GPU ---------------------------------------------------------------------------------------

SMALL, LARGE = "CUSTOM_VGPU_NVIDIA_2", "CUSTOM_VGPU_NVIDIA_10"
OTHER_SERVER = "aaaaaaaa-0000-4000-8000-000000000002"


@pytest.fixture
def sliced(context: Any, sysfs: Any) -> Path:
    """A time-sliced GPU with three types, two of them enabled."""
    path: Path = sysfs.add_function(GPU, "10de", "25b6", group=7)
    sysfs.add_mdev_parent(path, {"nvidia-2": 4, "nvidia-10": 2, "nvidia-99": 1}, time_sliced=True)
    context.conf.set_override("enabled_mdev_types", ["nvidia-2", "nvidia-10"], group="devices")
    return path


def units(resource_class: str, amount: int = 1) -> Any:
    return {**allocation(), "resources": {resource_class: amount}}


def totals(driver: MdevDriver) -> dict[str, int]:
    (device,) = driver.discover()
    return {name: inventory["total"] for name, inventory in device.inventories.items()}


def types_made(sysfs: Any) -> list[str]:
    return sorted((device / "mdev_type").resolve().name for device in sysfs.mdevs.iterdir())


def test_each_of_several_types_is_a_class_and_one_excludes_the_others(context: Any, sliced: Path) -> None:
    (device,) = MdevDriver(context).discover()
    assert {name: inventory["total"] for name, inventory in device.inventories.items()} == {SMALL: 4, LARGE: 2}
    assert device.capacity_rule == {"type": "one_type", "resource_classes": [LARGE, SMALL]}
    assert {"CUSTOM_VGPU_TYPE_NVIDIA_2", "CUSTOM_VGPU_TYPE_NVIDIA_10"} < device.traits


def test_a_gpu_that_supports_one_of_the_enabled_types_offers_plain_vgpus(context: Any, sysfs: Any) -> None:
    sysfs.add_mdev_parent(sysfs.add_function(GPU, group=7), {"nvidia-2": 4, "nvidia-99": 1})
    context.conf.set_override("enabled_mdev_types", ["nvidia-2", "nvidia-10"], group="devices")
    (device,) = MdevDriver(context).discover()
    assert set(device.inventories) == {"VGPU"}
    assert device.capacity_rule is None


def test_the_operator_may_name_the_classes(context: Any, sliced: Path) -> None:
    context.conf.set_override("mdev_class", {"nvidia-2": "VGPU", "nvidia-10": "CUSTOM_BIG"}, group="devices")
    assert totals(MdevDriver(context)) == {"VGPU": 4, "CUSTOM_BIG": 2}
    context.conf.set_override("mdev_class", {"nvidia-2": "VGPU", "nvidia-10": "VGPU"}, group="devices")
    (device,) = MdevDriver(context).discover()
    assert (set(device.inventories), device.capacity_rule) == ({"VGPU"}, None)
    assert "CUSTOM_VGPU_TYPE_NVIDIA_10" not in device.traits


def test_a_unit_becomes_a_device_of_the_type_of_its_class(context: Any, sysfs: Any, sliced: Path) -> None:
    driver = MdevDriver(context)
    made = driver.prepare(SERVER, units(LARGE, 2))
    assert types_made(sysfs) == ["nvidia-10", "nvidia-10"]
    assert driver.prepare(SERVER, units(LARGE, 2)) == made
    assert driver.marks(SERVER, units(LARGE, 2)) == {path.name for path in sysfs.mdevs.iterdir()}
    with pytest.raises(DeviceError, match="nvidia-2: No space left"):
        driver.prepare(OTHER_SERVER, units(SMALL))
    with pytest.raises(DeviceError, match=f"has {LARGE}, {SMALL}, not VGPU"):
        driver.prepare(OTHER_SERVER, units("VGPU"))


def test_what_a_gpu_carries_does_not_change_what_it_is_reported_to_have(context: Any, sliced: Path) -> None:
    driver = MdevDriver(context)
    before = driver.discover()
    driver.prepare(SERVER, units(SMALL, 2))
    assert driver.discover() == before
    driver.release(SERVER)
    driver.prepare(SERVER, units(LARGE))
    assert driver.discover() == before


def test_after_a_restart_the_other_types_are_known_by_their_description_or_when_the_gpu_is_empty(
    context: Any, sliced: Path
) -> None:
    MdevDriver(context).prepare(SERVER, units(SMALL))
    restarted = MdevDriver(context)
    assert totals(restarted) == {SMALL: 4}
    text = "num_heads=4, frl_config=60, framebuffer=8192M, max_resolution=4096x2160, max_instance=2\n"
    (sliced / "mdev_supported_types/nvidia-10/description").write_text(text)
    assert totals(restarted) == {SMALL: 4, LARGE: 2}
    (sliced / "mdev_supported_types/nvidia-10/description").unlink()
    restarted.release(SERVER)
    assert totals(restarted) == {SMALL: 4, LARGE: 2}


def test_what_others_made_is_no_part_of_what_we_have(context: Any, sysfs: Any, sliced: Path) -> None:
    driver = MdevDriver(context)
    driver.discover()
    sysfs.add_mdev(sliced / "mdev_supported_types/nvidia-99", "83b8f4f2-509f-4ef3-8e2a-0d29bfe5f6a1")
    assert totals(driver) == {}


def test_a_gpu_keeps_the_classes_of_what_it_carries_until_it_is_empty(context: Any, sysfs: Any, sliced: Path) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-10"], group="devices")
    driver = MdevDriver(context)
    made = driver.prepare(SERVER, allocation())
    # As a release that knew one class only wrote it.
    (entry,) = (context.state_path / "mdevs").iterdir()
    record = json.loads(entry.read_text())
    entry.write_text(json.dumps({key: record[key] for key in ("server_uuid", "parent", "type")}))
    context.conf.set_override("enabled_mdev_types", ["nvidia-2", "nvidia-10"], group="devices")
    upgraded = MdevDriver(context)
    assert totals(upgraded) == {"VGPU": 2}
    assert upgraded.prepare(SERVER, allocation()) == made
    upgraded.release(SERVER)
    assert totals(upgraded) == {SMALL: 4, LARGE: 2}


def test_a_device_of_another_type_is_made_anew_when_its_server_got_another_size(
    context: Any, sysfs: Any, gpu: Path
) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-2", "nvidia-10"], group="devices")
    small, large = (
        {**allocation(), "resources": {names.vgpu_class(type_id): 1}} for type_id in ("nvidia-10", "nvidia-2")
    )
    driver = MdevDriver(context)
    (before,) = driver.prepare(SERVER, small)
    (after,) = driver.prepare(SERVER, large)
    assert before == after
    assert existing(sysfs) == {after.uuid}
    assert (sysfs.mdevs / after.uuid / "mdev_type").resolve().name == "nvidia-2"
    assert driver.prepare(SERVER, large) == [after]


def test_displays_that_all_types_have_are_standard_traits(context: Any, sliced: Path) -> None:
    for type_id, size in (("nvidia-2", "3840x2160"), ("nvidia-10", "1920x1200")):
        text = f"num_heads=4, frl_config=60, framebuffer=8192M, max_resolution={size}, max_instance=2\n"
        (sliced / "mdev_supported_types" / type_id / "description").write_text(text)

    def told() -> set[str]:
        return {trait for trait in MdevDriver(context).discover()[0].traits if trait.startswith("HW_")}

    assert told() == {"HW_GPU_MAX_DISPLAY_HEADS_4"}
    context.conf.set_override("enabled_mdev_types", ["nvidia-2"], group="devices")
    assert told() == {"HW_GPU_MAX_DISPLAY_HEADS_4", "HW_GPU_RESOLUTION_W3840H2160"}


def test_the_framebuffers_of_all_types_are_traits(context: Any, sliced: Path) -> None:
    for type_id, size in (("nvidia-2", "8192M"), ("nvidia-10", "4096M")):
        text = f"num_heads=4, frl_config=60, framebuffer={size}, max_resolution=4096x2160, max_instance=2\n"
        (sliced / "mdev_supported_types" / type_id / "description").write_text(text)
    (device,) = MdevDriver(context).discover()
    told = {trait for trait in device.traits if "FRAMEBUFFER" in trait}
    assert told == {"CUSTOM_VGPU_FRAMEBUFFER_8192_MIB", "CUSTOM_VGPU_FRAMEBUFFER_4096_MIB"}


# --- virtual functions ----------------------------------------------------------------------------------------------

VFS = ["0000:41:00.4", "0000:41:00.5", "0000:41:00.6"]


def text(most: int) -> str:
    return f"num_heads=1, frl_config=60, framebuffer=4096M, max_resolution=4096x2160, max_instance={most}\n"


@pytest.fixture
def ampere(sysfs: Any) -> list[Path]:
    """A GPU with three virtual functions, each a parent with room for one device, that can have two of nvidia-10."""
    sysfs.add_function(GPU, "10de", "25b6", group=7)
    sysfs.add_virtual_functions(GPU, VFS, "25b6", first_group=8)
    paths = [sysfs.root / "devices/pci0000:00" / address for address in VFS]
    for path in paths:
        sysfs.add_mdev_parent(path, {"nvidia-10": 1})
        (path / "mdev_supported_types/nvidia-10/description").write_text(text(2))
    return paths


def parents(sysfs: Any) -> list[str]:
    return sorted((device.resolve().parent).name for device in sysfs.mdevs.iterdir())


def test_virtual_functions_belong_to_their_gpu_and_its_capacity_is_what_its_maker_says(
    context: Any, sysfs: Any, ampere: list[Path]
) -> None:
    (device,) = MdevDriver(context).discover()
    assert (device.name, device.address) == ("node1_pci_0000_41_00_0", GPU)
    assert device.inventories["VGPU"]["total"] == 2  # not 3


def test_where_nothing_is_said_each_virtual_function_counts(context: Any, sysfs: Any, ampere: list[Path]) -> None:
    for path in ampere:
        (path / "mdev_supported_types/nvidia-10/description").unlink()
    assert totals(MdevDriver(context)) == {"VGPU": 3}


def test_each_device_gets_a_virtual_function_of_its_own_and_the_capacity_stays(
    context: Any, sysfs: Any, ampere: list[Path]
) -> None:
    driver = MdevDriver(context)
    first = driver.prepare(SERVER, allocation())
    assert totals(driver) == {"VGPU": 2}
    driver.prepare(OTHER_SERVER, allocation())
    assert parents(sysfs) == VFS[:2]
    (ampere[2] / "mdev_supported_types/nvidia-10/available_instances").write_text("0\n")  # as the GPU is full
    assert totals(driver) == {"VGPU": 2}
    assert driver.prepare(SERVER, allocation()) == first
    with pytest.raises(DeviceError, match=r"0000:41:00\.0 gave no mediated device of type nvidia-10: No space left"):
        driver.prepare("aaaaaaaa-0000-4000-8000-000000000003", allocation())
    driver.release(SERVER)
    assert parents(sysfs) == VFS[1:2]


def test_after_a_reboot_a_device_is_made_where_it_was_if_it_can_be(
    context: Any, sysfs: Any, ampere: list[Path]
) -> None:
    driver = MdevDriver(context)
    driver.prepare(SERVER, allocation())
    made = driver.prepare(OTHER_SERVER, allocation())
    for device in list(sysfs.mdevs.iterdir()):
        sysfs.remove_mdev(device.name)
    assert MdevDriver(context).prepare(OTHER_SERVER, allocation()) == made
    assert parents(sysfs) == [VFS[1]]
    MdevDriver(context).release(OTHER_SERVER)
    (ampere[0] / "mdev_supported_types/nvidia-10/available_instances").write_text("0\n")
    MdevDriver(context).prepare(SERVER, allocation())
    assert parents(sysfs) == [VFS[1]]


def test_what_others_made_on_virtual_functions_is_no_part_of_what_we_have(
    context: Any, sysfs: Any, ampere: list[Path]
) -> None:
    sysfs.add_mdev(ampere[1] / "mdev_supported_types/nvidia-10", "83b8f4f2-509f-4ef3-8e2a-0d29bfe5f6a1")
    assert totals(MdevDriver(context)) == {"VGPU": 1}
