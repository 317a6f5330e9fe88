# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A host: what it reports, and how it brings virt and device drivers together."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from accelsched import names, wire
from accelsched.agent.devices import base as devices
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.agent.devices.simulated import SimulatedDeviceDriver
from accelsched.agent.host import Host
from accelsched.agent.plan import OwnedDevice
from accelsched.agent.virt.base import InterruptedBuildError, Progress
from accelsched.agent.virt.simulated import SimulatedDriver

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


class BrokenDriver(devices.DeviceDriver):
    """Finds its devices once, then fails."""

    found = 0

    def discover(self) -> list[devices.Device]:
        self.found += 1
        if self.found > 1:
            raise RuntimeError("the bus is on fire")
        return [devices.Device("node1_thing", "thing", {"CUSTOM_X": devices.inventory(1)}, frozenset())]

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[devices.Attachment]:
        raise devices.DeviceError("burnt")


def progress() -> Progress:
    return Progress(lambda _detail: None, threading.Event())


@pytest.fixture
def host(context: Any) -> Host:
    return Host(context, SimulatedDriver(context), {"simulated": SimulatedDeviceDriver(context)})


def test_a_host_tells_its_address_when_it_is_told(host: Host, context: Any) -> None:
    assert "host_ip" not in host.report("queue")["hypervisor"]
    context.conf.set_override("my_ip", "192.0.2.7", group="agent")
    assert host.report("queue")["hypervisor"]["host_ip"] == "192.0.2.7"


@pytest.mark.parametrize(("found", "told"), [("192.0.2.9", "192.0.2.9"), ("127.0.0.1", None)])
def test_a_host_that_is_real_finds_its_address(
    host: Host, context: Any, monkeypatch: pytest.MonkeyPatch, found: str, told: str | None
) -> None:
    monkeypatch.setattr("oslo_utils.netutils.get_my_ipv4", lambda: found)
    monkeypatch.setattr(SimulatedDriver, "simulated", False)
    assert host.report("queue")["hypervisor"].get("host_ip") == told
    context.conf.set_override("my_ip", "192.0.2.7", group="agent")
    assert host.report("queue")["hypervisor"]["host_ip"] == "192.0.2.7"


def test_the_report_says_what_is_wrong_with_a_device(context: Any) -> None:
    class Ailing(BrokenDriver):
        def discover(self) -> list[devices.Device]:
            there = devices.Device("node1_a", "thing", {"CUSTOM_X": devices.inventory(1)}, frozenset())
            return [there, dataclasses.replace(there, name="node1_b", fault="does not answer")]

    _, *children = Host(context, SimulatedDriver(context), {"ailing": Ailing(context)}).report("queue")["providers"]
    assert [child.get("fault") for child in children] == [None, "does not answer"]


def test_the_report_has_the_host_first_and_its_devices_below_it(host: Host, context: Any) -> None:
    context.conf.set_override("reserved_host_cpus", 4, group="agent")
    context.conf.set_override("reserved_host_disk_mb", 1025, group="agent")
    report = host.report("queue")
    root, *children = report["providers"]
    assert (report["host"], report["node_uuid"], report["agent"]) == ("node1", context.node_uuid, "queue")
    assert (root["name"], root["uuid"], root["parent"]) == ("node1", context.node_uuid, None)
    assert root["inventories"]["VCPU"]["reserved"] == 4
    assert root["inventories"]["VCPU"]["allocation_ratio"] == 4.0
    assert root["inventories"]["DISK_GB"]["reserved"] == 2
    assert "COMPUTE_NODE" in root["traits"]
    assert [child["parent"] for child in children] == [context.node_uuid] * 2
    assert [child["uuid"] for child in children] == [
        names.provider_uuid(context.node_uuid, child["name"]) for child in children
    ]
    assert report["simulated"]
    assert report == host.report("queue")


def test_more_reserved_than_there_is_reserves_everything(host: Host, context: Any) -> None:
    context.conf.set_override("reserved_host_cpus", 10_000, group="agent")
    vcpu = host.report("queue")["providers"][0]["inventories"]["VCPU"]
    assert vcpu["reserved"] == vcpu["total"]


def test_a_driver_that_fails_to_look_loses_neither_its_devices_nor_the_others(context: Any) -> None:
    drivers = {"broken": BrokenDriver(context), "simulated": SimulatedDeviceDriver(context)}
    host = Host(context, SimulatedDriver(context), drivers)
    assert host.report("queue") == host.report("queue")
    assert "node1_thing" in [provider["name"] for provider in host.report("queue")["providers"]]


def test_a_device_that_two_drivers_offer_is_the_first_ones(context: Any) -> None:
    first, second = SimulatedDeviceDriver(context), SimulatedDeviceDriver(context)
    host = Host(context, SimulatedDriver(context), {"first": first, "second": second})
    assert len(host.report("queue")["providers"]) == 3


def test_a_server_is_built_with_its_devices_and_removed_with_them(
    context: Any, sysfs: Any, assignment_for: Any
) -> None:
    gpu = sysfs.add_function("0000:41:00.0", group=1)
    sysfs.add_mdev_parent(gpu, {"lab-1": 2})
    host = Host(context, SimulatedDriver(context), {"mdev": MdevDriver(context)})
    provider = host.report("queue")["providers"][1]
    root = {"group": "", "provider_uuid": context.node_uuid, "provider_name": "node1", "resources": {"VCPU": 1}}
    vgpu = {
        "group": "1",
        "provider_uuid": provider["uuid"],
        "provider_name": provider["name"],
        "resources": {"VGPU": 1},
    }
    assignment = assignment_for(devices=[root, vgpu])
    host.build(assignment, progress())
    present = host.present([assignment])
    (mark,) = MdevDriver(context).marks(SERVER, vgpu)  # type: ignore[arg-type]
    assert [server.uuid for server in present.servers] == [SERVER]
    assert present.devices == [OwnedDevice("mdev", mark, SERVER)]
    host.remove(SERVER)
    host.remove(SERVER)
    assert host.present([assignment]).servers == []
    assert host.present([assignment]).devices == []


def test_a_device_that_a_server_has_no_more_is_spare_and_then_gone(
    context: Any, sysfs: Any, assignment_for: Any
) -> None:
    sysfs.add_mdev_parent(sysfs.add_function("0000:41:00.0", group=1), {"lab-1": 2})
    driver = MdevDriver(context)
    host = Host(context, SimulatedDriver(context), {"mdev": driver})
    (provider,) = host.report("queue")["providers"][1:]
    vgpus = {"group": "", "provider_uuid": provider["uuid"], "provider_name": provider["name"]}
    two, one = ({**vgpus, "resources": {"VGPU": amount}} for amount in (2, 1))
    host.build(assignment_for(devices=[two]), progress())
    smaller = assignment_for(devices=[one])
    (kept,) = driver.marks(SERVER, one)  # type: ignore[arg-type]
    (gone,) = driver.marks(SERVER, two) - {kept}  # type: ignore[arg-type]
    found = {device.mark: device.spare for device in host.present([smaller]).devices}
    assert found == {kept: False, gone: True}
    host.tidy(smaller)
    assert host.present([smaller]).devices == [OwnedDevice("mdev", kept, SERVER)]


def test_a_device_on_no_record_is_the_servers_whose_assignment_leads_to_its_mark(
    context: Any, sysfs: Any, assignment_for: Any
) -> None:
    gpu = sysfs.add_function("0000:41:00.0", group=1)
    sysfs.add_mdev_parent(gpu, {"lab-1": 2})
    driver = MdevDriver(context)
    host = Host(context, SimulatedDriver(context), {"mdev": driver})
    vgpu: Any = {"group": "", "provider_uuid": "b", "provider_name": "x", "resources": {"VGPU": 1}}
    (mark,) = driver.marks(SERVER, vgpu)
    sysfs.add_mdev(gpu / "mdev_supported_types/lab-1", mark)
    assert host.present([assignment_for(devices=[vgpu])]).devices == [OwnedDevice("mdev", mark, SERVER)]
    assert host.present([]).devices == [OwnedDevice("mdev", mark, None)]


def test_a_device_that_is_not_there_fails_the_build(host: Host, assignment_for: Any) -> None:
    missing = {"group": "", "provider_uuid": "b", "provider_name": "node1_missing", "resources": {"VGPU": 1}}
    with pytest.raises(devices.DeviceError, match="node1_missing"):
        host.build(assignment_for(devices=[missing]), progress())


def test_a_build_that_was_interrupted_before_its_first_step_makes_nothing(host: Host, assignment_for: Any) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(InterruptedBuildError):
        host.build(assignment_for(), Progress(lambda _detail: None, cancelled))
    assert host.present([]).servers == []
