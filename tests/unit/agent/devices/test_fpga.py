# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""FPGA regions on documented sysfs trees, programmed by executables that check their arguments and input."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fpga_cards
import pytest
from fpga_cards import BLANK, FOUND, FUNCTION, INTERFACE
from image_service import ImageService

from accelsched import bitstreams, errors, wire
from accelsched.agent.devices.base import DeviceError, PciAttachment
from accelsched.agent.devices.fpga import driver as fpga
from accelsched.agent.devices.fpga import sources
from accelsched.agent.devices.fpga.cards import Label
from accelsched.agent.virt.base import InterruptedBuildError, Progress
from accelsched.conf import fpga as options

SERVER, OTHER = (f"aaaaaaaa-0000-4000-8000-00000000000{number}" for number in (1, 2))
CARD, VIRTUAL = "0000:3b:00.0", "0000:3b:00.1"
OF_FUNCTION = {"resources:FPGA": "1", "accel:function_id": FUNCTION}


class Site:
    """A host with cards, a driver, and an image service with bitstreams."""

    def __init__(self, context: Any, images: ImageService, root: Path, make: Callable[[Any], fpga.FpgaDriver]) -> None:
        self.context, self.images, self.root, self._make = context, images, root, make
        self.jobs: list[wire.Programming] = []
        self.cancelled = threading.Event()
        self.driver = make(context)

    def restart(self) -> None:
        self.driver = self._make(self.context)

    def mood(self, mood: str) -> None:
        fpga_cards.write(self.root / "mood", mood)

    def only(self) -> Any:
        (device,) = self.driver.discover()
        return device

    def allocation(self) -> wire.DeviceAllocation:
        name = self.only().name
        return {"group": "", "provider_uuid": "b", "provider_name": name, "resources": {"FPGA": 1}}

    def give(self, assignment_for: Any, extra_specs: dict[str, str], server: str = SERVER) -> list[Any]:
        flavor = {"name": "f", "vcpus": 1, "ram_mb": 64, "disk_gb": 0, "extra_specs": extra_specs}
        assignment = assignment_for(server_uuid=server, flavor=flavor)
        self.jobs.clear()
        allocation = self.allocation()
        self.driver.program(assignment, allocation, Progress(lambda _detail: None, self.cancelled, self.jobs.append))
        return self.driver.prepare(server, allocation)

    def states(self) -> list[str]:
        return list(dict.fromkeys(job["state"] for job in self.jobs))

    def programmed(self) -> int:
        log = self.root / "programmed"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture(scope="module")
def image_service() -> Iterator[ImageService]:
    service = ImageService()
    yield service
    service.stop()


@pytest.fixture
def images(image_service: ImageService) -> ImageService:
    image_service.images.clear()
    return image_service


@pytest.fixture
def site(context: Any, images: ImageService, tmp_path: Path) -> Callable[..., Site]:
    root = tmp_path / "sys"
    for name in ("opae_path", "xrt_path"):
        context.conf.set_override(name, str(fpga_cards.install(tmp_path)), group="fpga")
    context.conf.set_override("settle_timeout", 0, group="fpga")
    context.conf.set_override("endpoint_override", images.url, group="glance")
    context.conf.set_override("download_attempts", 1, group="glance")

    def made(make: Callable[[Any], fpga.FpgaDriver] = fpga.dfl) -> Site:
        return Site(context, images, root, make)

    return made


def add_bitstream(images: ImageService, data: bytes | None = None, function_id: str = FUNCTION, **said: str) -> str:
    said = {"accel:function_id": function_id, "accel:interface_id": INTERFACE} | said
    return images.add(fpga_cards.gbs(function_id) if data is None else data, "raw", **said)["id"]


# --- discovery ----------------------------------------------------------------------------------------------------


def test_an_intel_card_is_one_region_reached_through_its_function(site: Any, tmp_path: Path) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    device = site().only()
    assert (device.name, device.how, device.address) == ("node1_pci_0000_3b_00_0", "dfl", CARD)
    assert device.inventories == {"FPGA": {**device.inventories["FPGA"], "total": 1, "reserved": 0}}
    assert device.traits == {
        "CUSTOM_FPGA_INTEL",
        "CUSTOM_FPGA_REGION_ID_INTEL_9926AB6D_6C92_5A68_AABC_A7D84C545738",
        "CUSTOM_FPGA_FUNCTION_ID_INTEL_F7DF405C_BD7A_CF72_22F1_44B0B93ACD18",
        "CUSTOM_PCI_VENDOR_8086",
        "CUSTOM_PCI_DEVICE_8086_09C4",
        "CUSTOM_NUMA_NODE_1",
        "CUSTOM_PCIE_ROOT_0000_00",
    }


def test_a_port_that_a_virtual_function_has_is_handed_out_as_that(site: Any, tmp_path: Path) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD, virtual=VIRTUAL)
    assert site().only().address == VIRTUAL


def test_a_card_that_cannot_be_used_is_told_once_and_hides_no_other(
    site: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "sys"
    fpga_cards.add_dfl_card(root, "0000:3c:00.0", ports=2)
    fpga_cards.add_dfl_card(root, "0000:3d:00.0")
    (root / "devices/pci0000:00/0000:3d:00.0/iommu_group").unlink()
    fpga_cards.add_dfl_card(root, CARD)
    there = site()
    assert [there.only().address for _ in range(2)] == [CARD] * 2
    told = [record.getMessage() for record in caplog.records if "not offered" in record.message]
    assert len(told) == 2
    assert "2 ports" in told[0]
    assert "IOMMU" in told[1]


def test_a_xilinx_card_is_told_by_its_executables(site: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "sys"
    fpga_cards.add_xilinx_card(root)
    fpga_cards.add_xilinx_card(root, "0000:66:00")
    (root / "devices/pci0000:00/0000:66:00.1/interface").unlink()
    device = site(fpga.xilinx).only()
    assert (device.name, device.address) == ("node1_pci_0000_65_00_1", "0000:65:00.1")
    assert {
        "CUSTOM_FPGA_XILINX",
        "CUSTOM_FPGA_REGION_ID_XILINX_9926AB6D_6C92_5A68_AABC_A7D84C545738",
        "CUSTOM_FPGA_FUNCTION_ID_XILINX_F7DF405C_BD7A_CF72_22F1_44B0B93ACD18",
        "CUSTOM_PCI_DEVICE_10EE_5021",
    } <= device.traits
    assert "0000:66:00.0 is not offered: xbmgmt failed with exit status 1" in caplog.text


# --- programming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tool", "virtual"), [("fpgaconf", None), ("fpgaconf", VIRTUAL), ("fpgasupdate", None)])
def test_a_region_is_programmed_before_it_is_attached(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any, tool: str, virtual: str | None
) -> None:
    afu_id = fpga_cards.add_dfl_card(tmp_path / "sys", CARD, virtual=virtual)
    image_id = add_bitstream(images)
    there = site()
    there.context.conf.set_override("opae_tool", tool, group="fpga")
    attachments = there.give(assignment_for, OF_FUNCTION)
    assert attachments == [PciAttachment(there.only().name, virtual or CARD)]
    assert afu_id.read_text().strip() == FUNCTION.replace("-", "")
    assert there.states() == ["looking up", "downloading", "programming", "programmed"]
    last = there.jobs[-1]
    assert (last["image_id"], last["function_id"], last["percent"], last["fault"]) == (image_id, FUNCTION, 100, None)
    assert last["finished_at"] is not None
    assert len({job["uuid"] for job in there.jobs}) == 1
    assert "CUSTOM_FPGA_FUNCTION_ID_INTEL_D8424DC4_A4A3_C413_F89E_433683F9040B" in there.only().traits
    assert not list((tmp_path / "state").glob("**/*.bitstream"))


def test_a_xilinx_region_is_programmed_by_xbutil(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    loaded = fpga_cards.add_xilinx_card(tmp_path / "sys")
    image_id = add_bitstream(images, fpga_cards.xclbin())
    there = site(fpga.xilinx)
    by_id = {"resources:FPGA": "1", "accel:bitstream_id": image_id}
    assert there.give(assignment_for, by_id) == [PciAttachment("node1_pci_0000_65_00_1", "0000:65:00.1")]
    assert loaded.read_text().strip() == FUNCTION
    there.mood("lie")
    there.driver.release(SERVER)
    add_bitstream(images, fpga_cards.xclbin(BLANK), BLANK)
    with pytest.raises(DeviceError, match="without an error"):
        there.give(assignment_for, {"resources:FPGA": "1", "accel:function_id": BLANK})


def test_what_is_there_already_is_not_programmed_again(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    there = site()
    found = {"resources:FPGA": "1", "accel:function_id": FOUND}
    there.give(assignment_for, found)  # no image has it, and none is needed
    assert (there.states(), there.programmed()) == (["looking up", "skipped"], 0)
    there.give(assignment_for, found)
    assert there.states() == []
    add_bitstream(images)
    there.give(assignment_for, OF_FUNCTION)  # another size of the same server
    there.restart()
    there.give(assignment_for, OF_FUNCTION)
    assert (there.states(), there.programmed()) == ([], 1)


def test_a_region_that_a_guest_has_cannot_be_seen_and_is_left_alone(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    root = tmp_path / "sys"
    fpga_cards.add_dfl_card(root, CARD)
    add_bitstream(images)
    there = site()
    there.give(assignment_for, OF_FUNCTION)
    before = there.only()
    for link in (root / "class/fpga_region").iterdir():
        link.unlink()  # as when vfio-pci has the function
    there.restart()
    assert there.only() == before
    assert there.give(assignment_for, OF_FUNCTION) == [PciAttachment(before.name, CARD)]
    assert there.programmed() == 1


@pytest.mark.parametrize(
    ("mood", "reason"), [("fail", "fpgaconf failed with exit status 1"), ("lie", "but has function f7df405c")]
)
def test_a_programming_that_fails_is_believed(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any, mood: str, reason: str
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    there = site()
    there.mood(mood)
    with pytest.raises(DeviceError, match=reason):
        there.give(assignment_for, OF_FUNCTION)
    last = there.jobs[-1]
    assert last["state"] == "failed"
    assert reason in last["fault"]["message"]  # type: ignore[index]
    assert ("PR timed out" in last["fault"]["details"]) == (mood == "fail")  # type: ignore[index]
    with pytest.raises(DeviceError, match="another server's"):
        there.driver.prepare(OTHER, there.allocation())
    there.driver.release(SERVER)
    there.mood("work")
    there.give(assignment_for, OF_FUNCTION, OTHER)
    assert there.states()[-1] == "programmed"


def test_an_executable_that_hangs_is_killed_in_time(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    there = site()
    there.mood("hang")
    there.context.conf.set_override("program_timeout", 1, group="fpga")
    began = time.monotonic()
    with pytest.raises(DeviceError, match="not done after 1 s"):
        there.give(assignment_for, OF_FUNCTION)
    assert time.monotonic() - began < 60


def test_an_executable_that_is_not_installed_is_named(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    there = site()
    there.context.conf.set_override("opae_path", str(tmp_path), group="fpga")
    with pytest.raises(DeviceError, match="fpgaconf cannot be run on this host"):
        there.give(assignment_for, OF_FUNCTION)


def test_a_build_that_is_interrupted_goes_on_with_its_job(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    there = site()
    there.cancelled.set()
    with pytest.raises(InterruptedBuildError):
        there.give(assignment_for, OF_FUNCTION)
    (first,) = {job["uuid"] for job in there.jobs}
    there.cancelled.clear()
    there.restart()
    there.give(assignment_for, OF_FUNCTION)
    assert {job["uuid"] for job in there.jobs} == {first}


def test_an_agent_that_died_while_programming_programs_again(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    afu_id = fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    there = site()

    def die(*_arguments: object, **_options: object) -> None:
        # The region tells what it shall have, yet nobody saw it come to an end.
        fpga_cards.write(afu_id, FUNCTION.replace("-", ""))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(there.driver._cards, "program", die)
        with pytest.raises(KeyboardInterrupt):
            there.give(assignment_for, OF_FUNCTION)
    there.restart()
    there.give(assignment_for, OF_FUNCTION)
    assert (there.states()[-1], there.programmed()) == ("programmed", 1)


# --- which bitstream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said", "reason"),
    [
        (fpga_cards.gbs(interface_id=BLANK), {"accel:interface_id": BLANK}, "made for interface 00000000-1111"),
        (fpga_cards.gbs(interface_id=BLANK), {}, "the bitstream says interface id 00000000-1111"),
        (fpga_cards.gbs(BLANK), {}, "the bitstream says function id 00000000-1111"),
        (b"anything", {"accel:interface_id": "x"}, "is not a UUID"),
        (fpga_cards.gbs(), {"os_hash_value": "0" * 128}, "not what its sha512 checksum says"),
        (fpga_cards.gbs(), {"os_hash_value": ""}, "no checksum"),
        (fpga_cards.gbs(), {"visibility": "private", "owner": "somebody"}, "no image with accel:function_id"),
    ],
)
def test_a_bitstream_that_does_not_fit_touches_nothing(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any, data: bytes, said: dict[str, str], reason: str
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images, data, **said)
    there = site()
    with pytest.raises(DeviceError, match=reason):
        there.give(assignment_for, OF_FUNCTION)
    assert (there.jobs[-1]["state"], there.programmed()) == ("failed", 0)


def test_a_function_that_two_images_have_is_not_guessed(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    for _ in range(2):
        add_bitstream(images)
    with pytest.raises(DeviceError, match="2 images"):
        site().give(assignment_for, OF_FUNCTION)
    mine = add_bitstream(images, visibility="private", owner="p1")
    site().give(assignment_for, {"resources:FPGA": "1", "accel:bitstream_id": mine})


def test_a_bitstream_must_say_what_it_is_made_for() -> None:
    with pytest.raises(DeviceError, match="does not say for which interface"):
        sources.verify(None, Label(None, FUNCTION), None, None)  # type: ignore[arg-type]


# --- scrubbing ----------------------------------------------------------------------------------------------------


def test_a_region_is_blank_before_the_next_server_has_it(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any
) -> None:
    afu_id = fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    there = site()
    blank = tmp_path / "blank.gbs"
    blank.write_bytes(fpga_cards.gbs(BLANK))
    there.context.conf.set_override("blank_bitstreams", {INTERFACE: str(blank)}, group="fpga")
    there.give(assignment_for, OF_FUNCTION)
    there.driver.release(SERVER, there.driver.marks(SERVER, there.allocation()))  # which it goes on to have
    assert (len(there.driver.present()), there.programmed()) == (1, 1)
    there.driver.release(SERVER)
    there.driver.release(SERVER)
    assert afu_id.read_text().strip() == BLANK.replace("-", "")
    assert (there.driver.present(), there.programmed(), blank.exists()) == ([], 2, True)


def test_a_region_that_cannot_be_scrubbed_is_reserved_until_it_is(
    site: Any, images: ImageService, tmp_path: Path, assignment_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    add_bitstream(images)
    blank = add_bitstream(images, function_id=BLANK)
    there = site()
    there.context.conf.set_override("blank_bitstreams", {INTERFACE: blank}, group="fpga")
    there.give(assignment_for, OF_FUNCTION)
    there.mood("fail")
    there.driver.release(SERVER)  # its owner need not wait for it
    assert "handed out to nobody" in caplog.text
    there.restart()
    (present,) = there.driver.present()
    assert present.server_uuid is None
    device = there.only()
    assert device.inventories["FPGA"]["reserved"] == 1
    assert "CUSTOM_FPGA_NOT_SCRUBBED" in device.traits
    with pytest.raises(DeviceError, match="not scrubbed"):
        there.give(assignment_for, OF_FUNCTION, OTHER)
    with pytest.raises(DeviceError, match="could not be scrubbed"):
        there.driver.remove(present.mark)
    there.mood("work")
    there.driver.remove(present.mark)
    assert there.only().inventories["FPGA"]["reserved"] == 0
    assert there.driver.present() == []


def test_without_a_blank_bitstream_a_region_is_given_back_as_it_is_and_that_is_said(
    site: Any, tmp_path: Path, assignment_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fpga_cards.add_dfl_card(tmp_path / "sys", CARD)
    there = site()
    for server in (SERVER, OTHER):
        there.give(assignment_for, {"resources:FPGA": "1"}, server)
        assert there.jobs == []
        there.driver.release(server)
    assert there.driver.present() == []
    assert caplog.text.count("are not scrubbed") == 1


# --- what is asked, and options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra_specs", "reason"),
    [
        ({"accel:function_id": FUNCTION}, "no resources:FPGA"),
        ({"resources:FPGA": "1", "accel:function_id": "nlb0"}, "not a UUID"),
        ({"resources:FPGA": "1", "accel:function_id": FUNCTION, "accel:bitstream_id": FUNCTION}, "enough"),
        ({"resources1:FPGA": "1", "accel2:function_id": FUNCTION}, "no resources2:FPGA"),
    ],
)
def test_what_cannot_be_meant_is_refused(extra_specs: dict[str, str], reason: str) -> None:
    with pytest.raises(errors.InvalidError, match=reason):
        bitstreams.asked(extra_specs)


def test_each_group_has_its_own() -> None:
    asked = bitstreams.asked({"resources_a:FPGA": "1", "accel_a:function_id": FUNCTION.replace("-", "").upper()})
    assert asked == {"_a": bitstreams.Wanted("function_id", FUNCTION)}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("opae_path", "bin"),
        ("blank_bitstreams", {"shell": "/blank.gbs"}),
        ("blank_bitstreams", {INTERFACE: "../blank.gbs"}),
    ],
)
def test_options_that_make_no_sense_are_refused(conf: Any, option: str, value: Any) -> None:
    conf.set_override(option, value, group="fpga")
    with pytest.raises(errors.ConfigurationError, match=option):
        options.check(conf)
