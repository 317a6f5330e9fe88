# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Domain XML against golden files (``golden/``) and libvirt's own schema.

A changed builder: ``REGENERATE_GOLDEN=1 pytest`` this file, then read the difference.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from accelsched.agent.devices.base import MdevAttachment, PciAttachment, SimulatedAttachment
from accelsched.agent.virt.libvirt.cpus import Cpus, GuestNode, Model
from accelsched.agent.virt.libvirt.domain import NAMESPACE, DirectBoot, DomainSpec, domain_xml
from accelsched.cpu_topology import CpuTopology

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = "/usr/share/libvirt/schemas/domain.rng"
STATE = Path("/var/lib/accelsched/instances/aaaaaaaa-0000-4000-8000-000000000001")
BASE = Path("/var/lib/accelsched/instances/_base")

PLAIN = DomainSpec(
    server_uuid="aaaaaaaa-0000-4000-8000-000000000001",
    name="Web 1 <&> ü",
    node_uuid="11111111-2222-4333-8444-555555555555",
    project_id="p1",
    user_id="u1",
    flavor="m1.gpu",
    image_id="cccccccc-0000-4000-8000-000000000001",
    virt_type="qemu",
    arch="x86_64",
    vcpus=2,
    memory_mb=512,
    console=STATE / "console.log",
    disk=STATE / "disk",
)
SPECS = {
    "plain": PLAIN,
    "direct_boot": dataclasses.replace(
        PLAIN,
        config_drive=STATE / "disk.config",
        direct_boot=DirectBoot(BASE / "kernel", BASE / "ramdisk", "console=ttyS0 a=<b>"),
    ),
    "uefi": dataclasses.replace(PLAIN, nvram=STATE / "nvram"),
    "rescue": dataclasses.replace(
        PLAIN,
        rescue_disk=STATE / "disk.rescue",
        config_drive=STATE / "disk.config",
    ),
    "devices": dataclasses.replace(
        PLAIN,
        virt_type="kvm",
        attachments=[
            MdevAttachment("node1_pci_0000_41_00_0", "acce15ed-0000-8000-a000-000000000001"),
            PciAttachment("node1_pci_0000_03_00_0", "0000:03:1f.7"),
            SimulatedAttachment("node1_simulated_gpu_0", "simulated VGPU 0 of node1_simulated_gpu_0"),
        ],
    ),
    "numa": dataclasses.replace(
        PLAIN,
        vcpus=4,
        cpus=Cpus(
            (
                GuestNode(1, (0,), frozenset({8, 9}), {1: 11}, 256, 2048),
                GuestNode(0, (), frozenset({0, 1}), {2: 3, 3: 4}, 256, None),
            )
        ),
    ),
    "cpu": dataclasses.replace(
        PLAIN,
        vcpus=4,
        cpu_topology=CpuTopology(1, 2, 2),
        cpu_model=Model("custom", "EPYC", {"pcid": True, "svm": False}),
    ),
    "network": dataclasses.replace(PLAIN, network="default"),
    "shared_cpus": dataclasses.replace(PLAIN, cpus=Cpus(float_on=frozenset({0, 1, 2, 8}))),
    "diskless": dataclasses.replace(PLAIN, disk=None, image_id=None, direct_boot=DirectBoot(BASE / "kernel", None, "")),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_xml_is_the_golden_one(name: str) -> None:
    golden = GOLDEN / f"{name}.xml"
    xml = domain_xml(SPECS[name])
    if os.environ.get("REGENERATE_GOLDEN"):
        golden.write_text(xml)
    assert xml == golden.read_text()


@pytest.mark.parametrize("name", SPECS)
def test_libvirts_schema_accepts_it(name: str) -> None:
    schema = etree.RelaxNG(file=SCHEMA)
    assert schema.validate(etree.fromstring(domain_xml(SPECS[name]))), schema.error_log


def test_every_device_has_a_root_port_of_its_own_and_there_are_spare_ones() -> None:
    for spec in SPECS.values():
        devices = etree.fromstring(domain_xml(spec)).find("devices")
        assert devices is not None
        ports = len(devices.findall("controller[@model='pcie-root-port']"))
        users = sum(len(devices.findall(kind)) for kind in ("disk", "interface", "rng", "memballoon", "hostdev"))
        assert ports >= users + 3


def test_conventional_pci_has_free_slots_behind_the_last_port_so_that_nothing_else_moves() -> None:
    for spec in SPECS.values():
        controllers = etree.fromstring(domain_xml(spec)).findall("devices/controller[@type='pci']")
        *ports, bridge = controllers
        assert bridge.get("model") == "pcie-to-pci-bridge"
        address = bridge.find("address")
        assert address is not None
        assert int(str(address.get("bus")), 16) == int(str(ports[-1].get("index"))) == len(ports) - 1


def test_the_mark_says_whose_domain_it_is_and_what_is_simulated() -> None:
    server = etree.fromstring(domain_xml(SPECS["devices"])).find(f"metadata/{{{NAMESPACE}}}server")
    assert server is not None
    assert server.get("node") == PLAIN.node_uuid
    assert server.get("uuid") == PLAIN.server_uuid
    kinds = [device.get("type") for device in server.findall(f"{{{NAMESPACE}}}device")]
    assert kinds == ["mdev", "pci", "simulated"]


@given(st.text(max_size=40))
def test_any_name_of_a_server_makes_well_formed_xml_with_a_title_of_one_line(name: str) -> None:
    domain: Any = etree.fromstring(domain_xml(dataclasses.replace(PLAIN, name=name, flavor=name)).encode())
    assert "\n" not in (domain.findtext("title") or "")
