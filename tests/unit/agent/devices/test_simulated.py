# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulated devices."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched.agent.devices.base import DeviceError, SimulatedAttachment
from accelsched.agent.devices.simulated import SimulatedDeviceDriver


def allocation(provider: str, **resources: int) -> Any:
    return {"group": "", "provider_uuid": "b", "provider_name": provider, "resources": resources}


def test_every_simulated_device_says_that_it_is(context: Any) -> None:
    context.conf.set_override("simulated_gpus", ["8", "4"], group="devices")
    devices = {device.name: device for device in SimulatedDeviceDriver(context).discover()}
    assert sorted(devices) == [
        "node1_simulated_fpga_0",
        "node1_simulated_gpu_0",
        "node1_simulated_gpu_1",
    ]
    assert all("CUSTOM_SIMULATED" in device.traits for device in devices.values())
    assert devices["node1_simulated_gpu_1"].inventories["VGPU"]["total"] == 4
    assert "CUSTOM_VGPU_TYPE_SIMULATED_8" in devices["node1_simulated_gpu_0"].traits


def test_each_unit_is_one_attachment_that_attaches_nothing(context: Any) -> None:
    attachments = SimulatedDeviceDriver(context).prepare("s", allocation("node1_simulated_gpu_0", VGPU=2))
    assert len(attachments) == 2
    assert all(isinstance(attachment, SimulatedAttachment) for attachment in attachments)
    assert "simulated VGPU 0" in str(attachments[0])


def test_unknown_devices_and_classes_are_refused(context: Any) -> None:
    driver = SimulatedDeviceDriver(context)
    with pytest.raises(DeviceError):
        driver.prepare("s", allocation("node1_simulated_gpu_9", VGPU=1))
    with pytest.raises(DeviceError):
        driver.prepare("s", allocation("node1_simulated_gpu_0", FPGA=1))
