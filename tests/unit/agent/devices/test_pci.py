# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole PCI functions on a fake sysfs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accelsched.agent.devices.base import DeviceError, PciAttachment
from accelsched.agent.devices.pci import PciDriver

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
    assert device.traits == {*ids, "CUSTOM_PCI_TYPE_PCI", "CUSTOM_FAST"}


@pytest.mark.parametrize(
    ("files", "traits"),
    [
        ({"numa_node": "1", "sriov_totalvfs": "8"}, {"CUSTOM_NUMA_NODE_1", "CUSTOM_PCI_TYPE_PF"}),
        ({"numa_node": "-1", "physfn": ""}, {"CUSTOM_PCI_TYPE_VF"}),
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


def test_bridges_in_the_group_do_not_matter_and_listed_neighbours_neither(context: Any, sysfs: Any) -> None:
    sysfs.add_function("0000:03:00.0", group=1)
    sysfs.add_function("0000:03:00.1", group=1)
    sysfs.add_function("0000:00:02.0", "1b36", "000c", pci_class="0x060400", group=1)
    assert addresses(driver(context, {"address": "0000:03:00.*"}).discover()) == ["0000:03:00.0", "0000:03:00.1"]


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
