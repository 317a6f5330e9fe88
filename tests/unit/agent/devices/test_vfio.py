# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""vGPUs by NVIDIA's vendor VFIO, on a sysfs tree and a nvidia-smi made after NVIDIA's documentation.

The command is a script that refuses arguments which the real one would, and keeps MIG instances in a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accelsched.agent.devices.base import DeviceError, PciAttachment
from accelsched.agent.devices.vfio import VfioDriver
from accelsched.placement import partitioning

GPU = "0000:41:00.0"
NAME = "node1_pci_0000_41_00_0"
VFS = ["0000:41:00.4", "0000:41:00.5", "0000:41:00.6", "0000:41:00.7"]
SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER_SERVER = "aaaaaaaa-0000-4000-8000-000000000002"

TYPES = """\
GPU 00000000:41:00.0
    vGPU Type ID                          : 0x2f0
        Name                              : NVIDIA H100-40C
        Class                             : Compute
        GPU Instance Profile ID           : N/A
        Max Instances                     : 2
        Max Instances Per VM              : 16
        Max Instances Per GI              : N/A
        FB Memory                         : 40960 MiB
    vGPU Type ID                          : 0x2f1
        Name                              : NVIDIA H100-20C
        Class                             : Compute
        GPU Instance Profile ID           : N/A
        Max Instances                     : 4
        Max Instances Per VM              : 16
        FB Memory                         : 20480 MiB
    vGPU Type ID                          : 0x390
        Name                              : NVIDIA H100-1-10C
        Class                             : Compute
        GPU Instance Profile ID           : 19
        Max Instances                     : 7
        Max Instances Per VM              : 1
        FB Memory                         : 10240 MiB
    vGPU Type ID                          : 0x391
        Name                              : NVIDIA H100-3-40C
        Class                             : Compute
        GPU Instance Profile ID           : 9
        Max Instances                     : 2
        Max Instances Per VM              : 1
        FB Memory                         : 40960 MiB
"""
PROFILES = """\
+-----------------------------------------------------------------------------+
| GPU instance profiles:                                                      |
| GPU   Name             ID    Instances   Memory     P2P    SM    DEC   ENC  |
|                              Free/Total   GiB              CE    JPEG  OFA  |
|=============================================================================|
|   0  MIG 1g.10gb       19     7/7        9.62       No     16     1     0   |
|                                                             1     1     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 3g.40gb        9     2/2        39.38      No     60     3     0   |
|                                                             3     3     0   |
+-----------------------------------------------------------------------------+
|   0  MIG 7g.80gb        0     1/1        79.12      No     132    7     0   |
|                                                             8     7     1   |
+-----------------------------------------------------------------------------+
"""
PLACEMENTS = """\
GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1
GPU  0 Profile ID  9 Placements: {0,4}:4
GPU  0 Profile ID  0 Placement : {0}:8
"""
SMI = """\
#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >>calls
case "$*" in
  "vgpu -s -v -i 0000:41:00.0") cat types ;;
  "mig -lgip -i 0000:41:00.0")
    [ -e profiles ] && cat profiles || { echo "No MIG-enabled devices found."; exit 6; } ;;
  "mig -lgipp -i 0000:41:00.0") cat placements ;;
  "mig -lgi -i 0000:41:00.0") [ -s instances ] && cat instances || { echo "No GPU instances found"; exit 6; } ;;
  "mig -cgi 19:"*" -C -i 0000:41:00.0")
    start=${3#19:}
    echo "|   0  MIG 1g.10gb         19        $((start + 7))          $start:1     |" >>instances ;;
  "mig -dci -gi "*" -i 0000:41:00.0") ;;
  "mig -dgi -gi "*" -i 0000:41:00.0") sed -i "/ 19 *$4 /d" instances ;;
  *) echo "unknown: $*" >&2; exit 2 ;;
esac
"""


@pytest.fixture
def smi(context: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "nvidia"
    folder.mkdir()
    (folder / "types").write_text(TYPES)
    script = folder / "nvidia-smi"
    script.write_text(SMI)
    script.chmod(0o755)
    context.conf.set_override("nvidia_smi", str(script), group="devices")
    return folder


@pytest.fixture
def gpu(sysfs: Any, smi: Path) -> Any:
    sysfs.add_function(GPU, "10de", "2331", pci_class="0x030200", group=7)
    sysfs.add_virtual_functions(GPU, VFS, "2331", first_group=8)
    sysfs.add_vendor_vgpus(VFS)
    sysfs.make_creatable(VFS, {752: "NVIDIA H100-40C", 753: "NVIDIA H100-20C"})
    return sysfs


@pytest.fixture
def mig(gpu: Any, smi: Path, context: Any) -> Path:
    """The GPU in MIG mode, without an instance that a type could be of."""
    gpu.make_creatable(VFS, {})
    (smi / "profiles").write_text(PROFILES)
    (smi / "placements").write_text(PLACEMENTS)
    context.conf.set_override("enabled_mdev_types", ["nvidia-912", "nvidia-913"], group="devices")
    return smi


def allocation(amount: int = 1, resource_class: str = "VGPU", **more: Any) -> Any:
    return {
        "group": "",
        "provider_uuid": "bbbbbbbb-0000-4000-8000-000000000001",
        "provider_name": NAME,
        "resources": {resource_class: amount},
        **more,
    }


def set_(sysfs: Any) -> list[str]:
    return [(sysfs.functions / address / "nvidia/current_vgpu_type").read_text().strip() for address in VFS]


def test_a_gpu_is_offered_with_what_nvidia_smi_says_that_it_can_have(context: Any, gpu: Any) -> None:
    (device,) = VfioDriver(context).discover()
    assert (device.name, device.address, device.how) == (NAME, GPU, "vfio")
    assert {name: told["total"] for name, told in device.inventories.items()} == {"VGPU": 2}  # nvidia-752, by name
    assert "CUSTOM_VGPU_TYPE_NVIDIA_752" in device.traits
    assert device.capacity_rule is None


def test_several_types_exclude_each_other_and_no_more_than_the_virtual_functions_are_promised(
    context: Any, gpu: Any
) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-752", "nvidia-753"], group="devices")
    (gpu.functions / VFS[3] / "nvidia/current_vgpu_type").unlink()
    (device,) = VfioDriver(context).discover()
    totals = {name: told["total"] for name, told in device.inventories.items()}
    assert totals == {"CUSTOM_VGPU_NVIDIA_752": 2, "CUSTOM_VGPU_NVIDIA_753": 3}
    assert device.capacity_rule == {"type": "one_type", "resource_classes": sorted(totals)}


def test_a_unit_is_a_virtual_function_with_its_type_set_and_reset_after(context: Any, gpu: Any) -> None:
    driver = VfioDriver(context)
    given = driver.prepare(SERVER, allocation())
    assert given == [PciAttachment(NAME, VFS[0], managed=False)]
    assert driver.prepare(OTHER_SERVER, allocation()) == [PciAttachment(NAME, VFS[1], managed=False)]
    assert set_(gpu) == ["752", "752", "0", "0"]
    assert [(device.mark, device.server_uuid) for device in driver.present()] == [
        (VFS[0], SERVER),
        (VFS[1], OTHER_SERVER),
    ]
    assert VfioDriver(context).prepare(SERVER, allocation()) == given
    driver.release(SERVER)
    assert set_(gpu) == ["0", "752", "0", "0"]
    driver.release(OTHER_SERVER)
    assert (set_(gpu), driver.present()) == (["0"] * 4, [])


def test_killed_between_the_record_and_the_type_or_rebooted_it_is_the_same_virtual_function(
    context: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("accelsched.agent.devices.sysfs.write", killed)
        with pytest.raises(KeyboardInterrupt):
            VfioDriver(context).prepare(SERVER, allocation())
    restarted = VfioDriver(context)
    assert [device.server_uuid for device in restarted.present()] == [SERVER]
    assert restarted.prepare(SERVER, allocation()) == [PciAttachment(NAME, VFS[0], managed=False)]
    (gpu.functions / VFS[0] / "nvidia/current_vgpu_type").write_text("0\n")  # the reboot
    assert VfioDriver(context).prepare(SERVER, allocation()) == [PciAttachment(NAME, VFS[0], managed=False)]
    assert set_(gpu) == ["752", "0", "0", "0"]


def test_a_type_that_somebody_else_set_is_left_alone_and_not_promised(context: Any, gpu: Any) -> None:
    driver = VfioDriver(context)
    (gpu.functions / VFS[0] / "nvidia/current_vgpu_type").write_text("752\n")
    assert driver.discover()[0].inventories["VGPU"]["total"] == 1
    assert driver.prepare(SERVER, allocation()) == [PciAttachment(NAME, VFS[1], managed=False)]
    driver.release(SERVER)
    assert set_(gpu) == ["752", "0", "0", "0"]
    (gpu.functions / VFS[0] / "nvidia/current_vgpu_type").write_text("753\n")  # excludes the type that we offer
    assert driver.discover()[0].inventories == {}


def test_a_type_that_an_empty_gpu_does_not_take_is_not_offered(context: Any, gpu: Any) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-752", "nvidia-753"], group="devices")
    gpu.make_creatable(VFS, {753: "NVIDIA H100-20C"})
    driver = VfioDriver(context)
    assert driver.discover()[0].inventories.keys() == {"VGPU"}
    assert "CUSTOM_VGPU_TYPE_NVIDIA_753" in driver.discover()[0].traits
    gpu.make_creatable(VFS, {})
    assert driver.discover() == []
    assert driver.refused()[GPU].reason == "it supports no type of [devices] enabled_mdev_types"


def test_what_a_gpu_takes_when_it_is_empty_is_remembered_while_it_is_not(context: Any, gpu: Any) -> None:
    context.conf.set_override("enabled_mdev_types", ["nvidia-752", "nvidia-753"], group="devices")
    driver = VfioDriver(context)
    before = driver.discover()
    driver.prepare(SERVER, allocation(resource_class="CUSTOM_VGPU_NVIDIA_753"))
    assert "752" not in (gpu.functions / VFS[1] / "nvidia/creatable_vgpu_types").read_text()
    assert driver.discover() == before


def test_a_virtual_function_is_chosen_that_takes_the_type(context: Any, gpu: Any) -> None:
    driver = VfioDriver(context)
    driver.discover()
    gpu.make_creatable(VFS[:2], {753: "NVIDIA H100-20C"})
    assert driver.prepare(SERVER, allocation()) == [PciAttachment(NAME, VFS[2], managed=False)]


def test_a_type_that_no_virtual_function_takes_just_now_is_refused_with_those_that_they_take(
    context: Any, gpu: Any
) -> None:
    driver = VfioDriver(context)
    driver.discover()
    gpu.make_creatable(VFS, {753: "NVIDIA H100-20C"})
    (gpu.functions / VFS[3] / "nvidia/current_vgpu_type").write_text("753\n")  # by somebody else
    with pytest.raises(DeviceError, match=f"{GPU} takes no vGPU of type nvidia-752 just now, but nvidia-753"):
        driver.prepare(SERVER, allocation())
    assert driver.present() == []


def test_the_framebuffer_of_its_types_is_a_trait_of_the_gpu(context: Any, gpu: Any) -> None:
    (device,) = VfioDriver(context).discover()
    assert "CUSTOM_VGPU_FRAMEBUFFER_40960_MIB" in device.traits


def test_a_type_that_cannot_be_reset_is_in_use_and_stays_on_record(
    context: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = VfioDriver(context)
    driver.prepare(SERVER, allocation())

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("accelsched.agent.devices.sysfs.write", refused)
    with pytest.raises(DeviceError, match=f"{VFS[0]} cannot be removed: Operation not permitted"):
        driver.release(SERVER)
    assert [device.server_uuid for device in driver.present()] == [SERVER]


def test_a_gpu_of_which_nvidia_smi_does_not_tell_is_not_offered(
    context: Any, gpu: Any, smi: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (smi / "types").unlink()
    driver = VfioDriver(context)
    assert driver.discover() == driver.discover() == []
    assert caplog.text.count("ended with status 1") == 1
    with pytest.raises(DeviceError, match="vgpu -s -v -i"):
        driver.prepare(SERVER, allocation())


# --- MIG ------------------------------------------------------------------------------------------------------------

SMALL, LARGE = "CUSTOM_VGPU_NVIDIA_912", "CUSTOM_VGPU_NVIDIA_913"


def test_in_mig_mode_the_types_are_profiles_with_places(context: Any, mig: Path) -> None:
    (device,) = VfioDriver(context).discover()
    assert {name: told["total"] for name, told in device.inventories.items()} == {SMALL: 4, LARGE: 2}
    assert device.capacity_rule == {
        "type": "slices",
        "memory_slices": 8,
        "compute_slices": 7,
        "profiles": {
            SMALL: {"memory_slices": 1, "compute_slices": 1, "starts": [0, 1, 2, 3, 4, 5, 6]},
            LARGE: {"memory_slices": 4, "compute_slices": 3, "starts": [0, 4]},
        },
    }
    partitioning.parse(device.capacity_rule)  # the resource database takes it


def test_a_mig_instance_is_made_at_its_place_and_removed_after(context: Any, gpu: Any, mig: Path) -> None:
    driver = VfioDriver(context)
    told = allocation(2, SMALL, positions={SMALL: [3, 6]})
    given = driver.prepare(SERVER, told)
    assert driver.prepare(SERVER, told) == given
    assert set_(gpu) == ["912", "912", "0", "0"]
    made = [line for line in (mig / "calls").read_text().splitlines() if "-cgi" in line]
    assert made == [f"mig -cgi 19:{start} -C -i {GPU}" for start in (3, 6)]
    moved = allocation(1, SMALL, positions={SMALL: [5]})  # it got another size, and another place
    driver.prepare(SERVER, moved)
    driver.release(SERVER, driver.marks(SERVER, moved))
    assert set_(gpu).count("912") == 1
    assert "mig -cgi 19:5 -C -i" in (mig / "calls").read_text()
    driver.release(SERVER)
    assert (mig / "instances").read_text() == ""
    assert "mig -dgi -gi 10 -i 0000:41:00.0" in (mig / "calls").read_text()
    assert set_(gpu) == ["0"] * 4


def test_without_a_place_nothing_is_made(context: Any, gpu: Any, mig: Path) -> None:
    driver = VfioDriver(context)
    with pytest.raises(DeviceError, match="nobody chose a place"):
        driver.prepare(SERVER, allocation(1, SMALL))
    assert driver.present() == []
    assert "-cgi" not in (mig / "calls").read_text()
