# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a domain that goes to another host as it runs keeps, and what it gets there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from accelsched import errors
from accelsched.agent.devices.base import MdevAttachment, PciAttachment
from accelsched.agent.virt.libvirt import landing
from accelsched.agent.virt.libvirt.cpus import Cpus, GuestNode
from accelsched.agent.virt.libvirt.domain import NAMESPACE, DirectBoot, DomainSpec, domain_xml

THERE, HERE = Path("/there"), Path("/here")


def spec(base: Path, node: str, **more: object) -> DomainSpec:
    made = DomainSpec(
        server_uuid="5c1b0a86-3f1e-4c39-9b0e-7a4c0f9e1a01",
        name="s",
        node_uuid=node,
        project_id="p",
        user_id="u",
        flavor="f",
        image_id="i",
        virt_type="qemu",
        arch="x86_64",
        vcpus=2,
        memory_mb=256,
        console=base / "console.log",
        disk=base / "disk",
        config_drive=base / "disk.config",
        direct_boot=DirectBoot(base / "kernel", base / "initrd", "console=ttyS0"),
        nvram=base / "nvram",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def comes(**more: object) -> str:
    """Return a definition as libvirt tells it of a domain that runs: with addresses, and the images of its disks."""
    domain = etree.fromstring(domain_xml(spec(THERE, "there", **more)))
    for disk in domain.iterfind("devices/disk"):
        chain = etree.SubElement(disk, "backingStore", type="file")
        etree.SubElement(chain, "source", file="/there/_base/i")
        etree.SubElement(disk, "address", type="pci", domain="0x0000", bus="0x07", slot="0x00", function="0x0")
    console = etree.SubElement(domain.find("devices"), "console", type="file")
    etree.SubElement(console, "source", path="/there/console.log")
    return etree.tostring(domain, encoding="unicode")


def adapted(more: dict[str, object], here: dict[str, object]) -> etree._Element:
    return etree.fromstring(landing.adapt(comes(**more), domain_xml(spec(HERE, "here", **here))))


def test_files_and_the_mark_are_of_the_host_that_it_comes_to_and_addresses_stay() -> None:
    domain = adapted({}, {})
    assert "/there/" not in etree.tostring(domain, encoding="unicode")
    mark = domain.find(f"metadata/{{{NAMESPACE}}}server")
    assert mark is not None
    assert mark.get("node") == "here"
    assert [source.get("file") for source in domain.iterfind("devices/disk/source")] == [
        "/here/disk",
        "/here/disk.config",
    ]
    assert [it.get("bus") for it in domain.iterfind("devices/disk/address")] == ["0x07", "0x07"]
    assert [domain.findtext(f"os/{tag}") for tag in ("nvram", "kernel", "initrd")] == [
        "/here/nvram",
        "/here/kernel",
        "/here/initrd",
    ]
    assert {it.get("path") for it in domain.iterfind("devices/*/source[@path]")} == {"/here/console.log"}


def test_devices_are_those_that_were_made_here_in_their_order() -> None:
    a, b = "0a1c7ff4-98a3-4a4f-8f9f-5a4b0d2d8b01", "0a1c7ff4-98a3-4a4f-8f9f-5a4b0d2d8b02"
    had = [MdevAttachment("gpu0", a), PciAttachment("nic", "0000:41:00.1", managed=False)]
    gets = [MdevAttachment("gpu3", b), PciAttachment("nic", "0000:86:00.3", managed=True)]
    domain = adapted({"attachments": had}, {"attachments": gets})
    mdev, pci = domain.findall("devices/hostdev")
    assert mdev.find("source/address").get("uuid") == b  # type: ignore[union-attr]
    address = pci.find("source/address")
    assert address is not None
    assert (pci.get("managed"), address.get("bus"), address.get("function")) == ("yes", "0x86", "0x3")
    assert {it.get("provider") for it in domain.iter(f"{{{NAMESPACE}}}device")} == {"gpu3", "nic"}


def test_cpus_and_nodes_are_those_that_were_claimed_here() -> None:
    def on(node: int, first: int) -> Cpus:
        pins = {0: first, 1: first + 1}
        return Cpus(nodes=(GuestNode(node, (), frozenset(), pins, 256, None),))

    domain = adapted({"cpus": on(0, 2)}, {"cpus": on(1, 10)})
    assert [pin.get("cpuset") for pin in domain.iterfind("cputune/vcpupin")] == ["10", "11"]
    assert domain.find("numatune/memory").get("nodeset") == "1"  # type: ignore[union-attr]
    floats = adapted({"cpus": Cpus(float_on=frozenset({1}))}, {})
    assert floats.find("vcpu").get("cpuset") is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "here", "told"),
    [
        ({}, {"config_drive": None}, "other disks"),
        ({"attachments": [MdevAttachment("g", "0a1c7ff4-98a3-4a4f-8f9f-5a4b0d2d8b01")]}, {}, "other devices"),
        ({"network": "a"}, {}, "network"),
        ({}, {"nvram": None}, "os/nvram"),
    ],
)
def test_what_does_not_fit_is_refused(more: dict[str, object], here: dict[str, object], told: str) -> None:
    with pytest.raises(errors.ConflictError, match=told):
        adapted(more, here)


def test_what_is_no_definition_is_refused() -> None:
    with pytest.raises(errors.ConflictError, match="cannot be read"):
        landing.adapt("<domain", domain_xml(spec(HERE, "here")))


def test_each_host_has_its_own_name_for_the_network() -> None:
    domain = adapted({"network": "blue"}, {"network": "green"})
    assert [source.get("network") for source in domain.iterfind("devices/interface/source")] == ["green"]
