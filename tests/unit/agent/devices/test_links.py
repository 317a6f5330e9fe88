# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator says of links, or NVIDIA's driver tells, becomes traits of the devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accelsched import conf as options
from accelsched import errors
from accelsched.agent.devices import base, links
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.conf import devices


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("gpu_0", "two or more"),
        ("gpu_0+gpu_0", "two or more"),
        ("gpu_0+card1", "card1"),
        ("0000:41:00.0+41:00.1", "41:00.1"),
    ],
)
def test_partitions_that_make_no_sense_are_named(item: str, told: str) -> None:
    conf = options.new()
    conf.set_override("link_partitions", [item], group="devices")
    with pytest.raises(errors.ConfigurationError, match=told):
        devices.check(conf)


def test_a_device_may_be_in_several_partitions() -> None:
    conf = options.new()
    conf.set_override("link_partitions", ["gpu_0+gpu_1", "gpu_0+gpu_1+gpu_10"], group="devices")
    devices.check(conf)
    assert base.link_traits(conf, "gpu_1") == {"CUSTOM_LINK_PARTITION_0", "CUSTOM_LINK_PARTITION_1"}
    assert base.link_traits(conf, "gpu_10") == {"CUSTOM_LINK_PARTITION_1"}
    assert base.link_traits(conf, "gpu_2") == frozenset()


LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
"""


def matrix(cells: list[list[str]], nics: int = 0) -> str:
    """Return what nvidia-smi topo -m prints, tabs, underlined head and all; by 580.95, also with network cards."""
    count = len(cells)
    head = [*(f"GPU{number}" for number in range(count)), *(f"NIC{number}" for number in range(nics))]
    lines = ["\t\x1b[4m" + "\t".join([*head, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]) + "\x1b[0m"]
    for number, row in enumerate(cells):
        shown = [" X " if cell == "X" else cell for cell in row]
        lines.append("\t".join([f"GPU{number}", *shown, *["SYS"] * nics, "0-55,112-167", "0", "", "N/A"]))
    for number in range(nics):
        lines.append("\t".join([f"NIC{number}", *["SYS"] * count, *[" X "] * nics]))
    return "\n".join(lines) + "\n" + LEGEND


def square(count: int, joined: dict[tuple[int, int], str]) -> list[list[str]]:
    def cell(row: int, column: int) -> str:
        return "X" if row == column else joined.get((min(row, column), max(row, column)), "SYS")

    return [[cell(row, column) for column in range(count)] for row in range(count)]


def sets(text: str, count: int) -> list[set[int]]:
    addresses = {number: f"0000:{number:02x}:00.0" for number in range(count)}
    found = links.partitions(links.parse_topology(text, addresses))
    return [{int(address[5:7], 16) for address in members} for members in found]


def test_gpus_behind_a_switch_are_one_set() -> None:
    every = {(row, column): "NV18" for row in range(8) for column in range(row + 1, 8)}
    assert sets(matrix(square(8, every), nics=4), 8) == [set(range(8))]


def test_pairs_that_bridges_join_are_sets_and_gpus_without_links_are_none() -> None:
    assert sets(matrix(square(5, {(0, 1): "NV4", (2, 3): "NV4"})), 5) == [{0, 1}, {2, 3}]
    assert sets(matrix(square(4, {(0, 1): "NODE"})), 4) == []
    assert sets(matrix(square(1, {})), 1) == []
    assert sets("No devices were found\n", 4) == []


def test_gpus_with_more_links_between_them_are_sets_within() -> None:
    """Four GPUs in a ring of single links, two opposite sides of which are double."""
    ring = {(0, 1): "NV2", (1, 2): "NV1", (2, 3): "NV2", (0, 3): "NV1"}
    assert sets(matrix(square(4, ring)), 4) == [{0, 1, 2, 3}, {0, 1}, {2, 3}]


def test_addresses_are_told_with_a_longer_domain_and_in_upper_case() -> None:
    assert links.parse_addresses("0, 00000000:1B:00.0\n1, 00000000:9D:00.0\n") == {
        0: "0000:1b:00.0",
        1: "0000:9d:00.0",
    }


@pytest.fixture
def smi(context: Any, tmp_path: Path) -> Path:
    """An nvidia-smi that checks its arguments, and counts how often it is asked."""
    directory = tmp_path / "nvidia"
    directory.mkdir()
    (directory / "topology").write_text(matrix(square(3, {(0, 2): "NV12"}), nics=1))
    (directory / "addresses").write_text("0, 00000000:41:00.0\n1, 00000000:42:00.0\n2, 00000000:43:00.0\n")
    script = directory / "nvidia-smi"
    script.write_text(
        f"""#!/bin/sh
cd {directory}
echo "$*" >> calls
case "$*" in
"topo -m") cat topology ;;
"--query-gpu=index,pci.bus_id --format=csv,noheader") cat addresses ;;
*) exit 3 ;;
esac
"""
    )
    script.chmod(0o755)
    context.conf.set_override("nvidia_smi", str(script), group="devices")
    return directory


@pytest.fixture
def gpus(sysfs: Any) -> list[str]:
    addresses = [f"0000:4{number}:00.0" for number in (1, 2, 3)]
    for number, address in enumerate(addresses):
        sysfs.add_mdev_parent(sysfs.add_function(address, "10de", "25b6", group=7 + number), {"nvidia-2": 4})
        sysfs.bind(address, "nvidia")
    return addresses


def traits(driver: Any, prefix: str) -> dict[str, set[str]]:
    return {
        device.address: {trait for trait in device.traits if trait.startswith(prefix)} for device in driver.discover()
    }


def test_gpus_that_nvidias_driver_says_are_joined_have_the_same_trait(context: Any, smi: Path, gpus: list[str]) -> None:
    driver = MdevDriver(context)
    joined = {"CUSTOM_LINK_PARTITION_0"}
    for _ in range(2):
        found = traits(driver, "CUSTOM_LINK")
        assert [found[address] for address in gpus] == [joined, set(), joined]
    assert len((smi / "calls").read_text().splitlines()) == 2  # once each
    assert traits(driver, "CUSTOM_PCIE") == {gpu: {"CUSTOM_PCIE_ROOT_0000_00"} for gpu in gpus}


def test_what_the_operator_says_counts_and_nobody_else_is_asked(context: Any, smi: Path, gpus: list[str]) -> None:
    context.conf.set_override("link_partitions", ["+".join(gpus[:2])], group="devices")
    found = traits(MdevDriver(context), "CUSTOM_LINK")
    assert [bool(found[address]) for address in gpus] == [True, True, False]
    assert not (smi / "calls").exists()


def test_gpus_are_offered_without_links_when_nobody_can_tell(
    context: Any, smi: Path, gpus: list[str], sysfs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (smi / "topology").unlink()
    driver = MdevDriver(context)
    assert traits(driver, "CUSTOM_LINK") == traits(driver, "CUSTOM_LINK") == {address: set() for address in gpus}
    assert caplog.text.count("Which links join GPUs is not known") == 1
    for address in gpus:
        sysfs.bind(address, "nouveau")
    (smi / "calls").unlink()
    assert set(traits(MdevDriver(context), "CUSTOM_LINK")) == set(gpus)
    assert not (smi / "calls").exists()
