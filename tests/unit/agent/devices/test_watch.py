# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices that hang while they are looked at: attributes that are FIFOs, which block whoever opens them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fpga_cards
import patience
import pytest
from attributes import hanging

from accelsched.agent.devices import watch
from accelsched.agent.devices.base import Device, DeviceError
from accelsched.agent.devices.fpga import driver as fpga
from accelsched.agent.devices.functions import Functions
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.agent.devices.pci import PciDriver
from accelsched.agent.devices.vfio import VfioDriver
from accelsched.agent.devices.watch import StuckError, Watch

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
HUNG, FINE = "0000:41:00.0", "0000:42:00.0"


@pytest.fixture
def quick(context: Any) -> Any:
    context.conf.set_override("look_timeout", 0.3, group="devices")
    return context


def faults(devices: list[Device]) -> dict[str | None, str | None]:
    return {device.address: device.fault for device in devices}


def test_what_is_quick_is_looked_at_in_one_thread_and_an_error_is_the_callers() -> None:
    threads = set()

    def look() -> int:
        threads.add(threading.get_ident())
        return 1

    one = Watch(5.0)
    assert one.each({str(number): look for number in range(100)}) == {str(number): 1 for number in range(100)}
    assert len(threads) == 1
    with pytest.raises(ZeroDivisionError):
        one.each({"bad": lambda: 1 // 0, "good": look})
    assert one.call("good", look) == 1
    assert one.each({}) == {}


def test_many_that_hang_take_no_longer_than_a_few_and_keep_none_of_the_others_waiting() -> None:
    go_on = threading.Event()
    looks: dict[str, Callable[[], object]] = {f"hung {number}": go_on.wait for number in range(10)}
    looks["fine"] = lambda: True
    one = Watch(0.3)
    since = time.monotonic()
    assert one.each(looks) == {"fine": True}
    assert time.monotonic() - since < 2.5
    assert len(one.stuck()) == 10
    since = time.monotonic()
    assert one.each(looks) == {"fine": True}
    assert time.monotonic() - since < 0.3  # it does not wait for them again
    with pytest.raises(StuckError, match="hung 3 does not answer"):
        one.call("hung 3", lambda: None)
    go_on.set()
    patience.wait(lambda: not one.stuck())
    assert len(one.each(looks)) == 11


def test_a_gpu_that_hangs_is_reported_as_it_was_with_a_fault_and_the_others_as_they_are(quick: Any, sysfs: Any) -> None:
    for number, address in enumerate((HUNG, FINE)):
        sysfs.add_mdev_parent(sysfs.add_function(address, "10de", "25b6", group=7 + number), {"nvidia-2": 4})
    driver = MdevDriver(quick)
    before = driver.discover()
    assert faults(before) == {HUNG: None, FINE: None}
    attribute = sysfs.functions / HUNG / "mdev_supported_types/nvidia-2/available_instances"
    wanted: Any = {"group": "", "provider_uuid": "b" * 36, "provider_name": before[0].name, "resources": {"VGPU": 1}}
    with hanging(attribute) as let_go:
        for _ in range(2):
            now = driver.discover()
            assert faults(now) == {HUNG: watch.STUCK, FINE: None}
            assert [device.inventories for device in now] == [device.inventories for device in before]
        assert driver.refused() == {HUNG: watch.REFUSAL}
        with pytest.raises(DeviceError, match=f"{HUNG} does not answer"):
            driver.prepare(SERVER, wanted)
        unseen = MdevDriver(quick)  # an agent that never saw it
        with pytest.raises(DeviceError, match=f"{HUNG} does not answer"):
            unseen.prepare(SERVER, wanted)
        assert unseen.discover()[0].address == FINE
        let_go()
        patience.wait(lambda: driver.discover() == before)
        assert driver.refused() == {}
        assert len(driver.prepare(SERVER, wanted)) == 1


def test_a_vgpu_that_cannot_be_made_or_removed_fails_in_time(quick: Any, sysfs: Any, monkeypatch: Any) -> None:
    sysfs.add_mdev_parent(sysfs.add_function(FINE, "10de", "25b6", group=7), {"nvidia-2": 4})
    driver = MdevDriver(quick)
    (device,) = driver.discover()
    wanted: Any = {"group": "", "provider_uuid": "b" * 36, "provider_name": device.name, "resources": {"VGPU": 1}}
    go_on = threading.Event()

    def write(path: Path, text: str) -> None:
        go_on.wait()
        sysfs.write(path, text)

    monkeypatch.setattr("accelsched.agent.devices.sysfs.write", write)
    for _ in range(2):
        with pytest.raises(DeviceError, match="does not answer"):
            driver.prepare(SERVER, wanted)
    go_on.set()
    patience.wait(lambda: any(sysfs.mdevs.iterdir()))
    assert len(driver.prepare(SERVER, wanted)) == 1
    driver.release(SERVER)
    assert driver.present() == []


def test_a_whole_function_that_hangs_is_closed_and_not_handed_out(quick: Any, sysfs: Any) -> None:
    for number, address in enumerate((HUNG, FINE)):
        sysfs.add_function(address, group=7 + number)
    quick.conf.set_override("pci_device_spec", ['{"vendor_id": "1234", "product_id": "11e8"}'], group="devices")
    driver = PciDriver(quick)
    before = driver.discover()
    wanted: Any = {
        **{"group": "", "provider_uuid": "b" * 36, "provider_name": before[0].name},
        "resources": dict.fromkeys(before[0].inventories, 1),
    }
    with hanging(sysfs.functions / HUNG / "vendor") as let_go:
        assert faults(driver.discover()) == {HUNG: watch.STUCK, FINE: None}
        with pytest.raises(DeviceError, match="does not answer"):
            driver.prepare(SERVER, wanted)
        unseen = Functions(sysfs.root, Watch(0.3)).read()
        assert (unseen[HUNG].stuck, unseen[HUNG].iommu_group, unseen[FINE].vendor) == (True, "7", "1234")
        let_go()
        patience.wait(lambda: driver.discover() == before)


def test_a_gpu_whose_virtual_functions_hang_is_closed(quick: Any, sysfs: Any, tmp_path: Path) -> None:
    virtual = ["0000:41:00.4", "0000:41:00.5"]
    sysfs.add_function(HUNG, "10de", "26b9", pci_class="0x030200", group=7)
    sysfs.add_virtual_functions(HUNG, virtual, "26b9", first_group=20)
    sysfs.add_vendor_vgpus(virtual)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\ncat <<END\n"
        "    vGPU Type ID                  : 0x46d\n"
        "        Name                      : NVIDIA L40S-8Q\n"
        "        Max Instances             : 6\nEND\n"
    )
    smi.chmod(0o755)
    quick.conf.set_override("nvidia_smi", str(smi), group="devices")
    driver = VfioDriver(quick)
    before = driver.discover()
    assert faults(before) == {HUNG: None}
    with hanging(sysfs.functions / virtual[1] / "nvidia/current_vgpu_type") as let_go:
        assert faults(driver.discover()) == {HUNG: watch.STUCK}
        assert driver.refused() == {HUNG: watch.REFUSAL}
        let_go()
        patience.wait(lambda: driver.discover() == before)


def test_an_fpga_card_that_hangs_is_closed_and_does_not_keep_the_others_waiting(quick: Any, tmp_path: Path) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", HUNG)
    fpga_cards.add_dfl_card(tmp_path / "sys", FINE)
    driver = fpga.dfl(quick)
    before = driver.discover()
    assert faults(before) == {HUNG: None, FINE: None}
    (attribute,) = (path for path in (tmp_path / "sys").rglob("compat_id") if HUNG in str(path))
    with hanging(attribute) as let_go:
        assert faults(driver.discover()) == {HUNG: watch.STUCK, FINE: None}
        assert driver.refused() == {HUNG: watch.REFUSAL}
        let_go()
        patience.wait(lambda: faults(driver.discover()) == {HUNG: None, FINE: None})
