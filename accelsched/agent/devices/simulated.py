# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices that do not exist, for demonstrations and fleet tests; they say so in their name, traits and metadata."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import ClassVar

import os_resource_classes as orc

from accelsched import names, wire
from accelsched.agent.devices import base

TRAIT = names.custom("SIMULATED")
VGPU_TYPE = "simulated_8"


class SimulatedDeviceDriver(base.DeviceDriver):
    """Hands out nothing, under the names of GPUs and FPGAs."""

    simulated: ClassVar[bool] = True

    def discover(self) -> list[base.Device]:
        """Return the devices of ``[devices] simulated_gpus`` and ``simulated_fpgas``."""
        return list(self._devices.values())

    @cached_property
    def _devices(self) -> dict[str, base.Device]:
        options = self.context.conf.devices
        gpus = [
            self._device(f"gpu_{number}", orc.VGPU, int(count), {names.vgpu_type_trait(VGPU_TYPE)})
            for number, count in enumerate(options.simulated_gpus)
        ]
        fpgas = [self._device(f"fpga_{number}", orc.FPGA, 1, set()) for number in range(options.simulated_fpgas)]
        if nodes := self.context.conf.agent.simulated_numa_nodes:
            for some in (gpus, fpgas):
                some[:] = [self._on_node(device, number % nodes) for number, device in enumerate(some)]
        return {device.name: device for device in gpus + fpgas}

    def _device(self, name: str, resource_class: str, total: int, traits: set[str]) -> base.Device:
        return base.Device(
            name=f"{self.context.host}_simulated_{name}",
            how="simulated",
            inventories={resource_class: base.inventory(total)},
            traits=frozenset({TRAIT} | traits) | base.link_traits(self.context.conf, name),
        )

    @staticmethod
    def _on_node(device: base.Device, node: int) -> base.Device:
        return dataclasses.replace(device, traits=device.traits | base.place_traits(node))

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Return one attachment, which attaches nothing, for each unit."""
        name = allocation["provider_name"]
        if name not in self._devices:
            raise base.DeviceError(f"there is no simulated device {name} on this host")
        if not allocation["resources"].keys() <= self._devices[name].inventories.keys():
            raise base.DeviceError(f"{name} has no {', '.join(sorted(allocation['resources']))}")
        return [
            base.SimulatedAttachment(name, f"simulated {resource_class} {index} of {name}")
            for resource_class, amount in sorted(allocation["resources"].items())
            for index in range(amount)
        ]
