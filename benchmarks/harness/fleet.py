# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The fleet that both servers get: a pure description, the same at every run.

A *vGPU host* is a root with VCPU, MEMORY_MB and DISK_GB, four GPUs with 8 VGPU each and one FPGA below it. Five
consumers hold 31 % of its processors, memory, disk and vGPUs, and on three hosts of ten the FPGA. A *whole-GPU host*
has eight children with one PGPU each; on three hosts of ten one consumer holds all of them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence

GPUS = 4
VGPUS = 8
CONSUMERS = 5  # a vGPU host
WHOLE_GPUS = 8
GPU_TRAITS = ("CUSTOM_GPU_A16", "CUSTOM_GPU_L40S")
CUSTOM_TRAITS = (*GPU_TRAITS, "CUSTOM_FPGA_U250", "CUSTOM_GPU_H100")
PROJECT = "6d9f2c4e-0000-4000-8000-000000000001"
USER = "6d9f2c4e-0000-4000-8000-000000000002"

# Kinds of uuid; the other digits say which one it is.
_HOST, _DEVICE, _CONSUMER, _CLAIM = 0xA0, 0xB0, 0xC0, 0xD0
# By the consumers, of one GPU.
_MOST_HELD = 4
_HOLDS = {"VCPU": 16, "MEMORY_MB": 32768, "DISK_GB": 240}
_CLAIMS = {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 10}


@dataclasses.dataclass(frozen=True)
class Stock:
    """An inventory and how much of it the fleet's consumers hold."""

    total: int
    used: int
    reserved: int = 0
    allocation_ratio: float = 1.0


@dataclasses.dataclass(frozen=True)
class Provider:
    """A root or a device."""

    uuid: str
    name: str
    inventories: Mapping[str, Stock]
    traits: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Consumer:
    """Holds amounts by class from some providers of one host."""

    uuid: str
    allocations: Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True)
class Host:
    """A tree of two levels, and who holds what of it."""

    root: Provider
    devices: Sequence[Provider]
    consumers: Sequence[Consumer]


def whole_gpu_hosts(hosts: int) -> int:
    """Return how many whole-GPU hosts stand beside so many vGPU hosts."""
    return max(10, hosts // 20)


def generate(hosts: int, *, first: int = 0) -> Iterator[Host]:
    """Yield the vGPU hosts, then the whole-GPU hosts.

    :param first: number of the first vGPU host; whole-GPU hosts are there only when it is 0
    """
    for number in range(first, first + hosts):
        yield vgpu_host(number)
    if first == 0:
        for number in range(whole_gpu_hosts(hosts)):
            yield _whole_gpu_host(number)


def vgpu_host(number: int, *, in_use: bool = True) -> Host:
    """Return one vGPU host."""
    root_uuid, name = _uuid(_HOST, number), f"host-{number:06d}"
    # Consumers 1 and 2 share a GPU; which one differs from host to host.
    gpu_of = [(number + gpu) % GPUS for gpu in (0, 1, 1, 2, 3)]
    held_of = [2 * gpu_of.count(gpu) if in_use else 0 for gpu in range(GPUS)]
    fpga_held = int(in_use and number % 10 < 3)
    gpus = [
        Provider(
            gpu_uuid(number, gpu),
            f"{name}-gpu-{gpu}",
            {"VGPU": Stock(VGPUS, held_of[gpu])},
            [GPU_TRAITS[number % 2], "HW_GPU_API_VULKAN"],
        )
        for gpu in range(GPUS)
    ]
    fpga = Provider(_uuid(_DEVICE, number, GPUS), f"{name}-fpga", {"FPGA": Stock(1, fpga_held)}, ["CUSTOM_FPGA_U250"])
    consumers = []
    for index in range(CONSUMERS if in_use else 0):
        allocations: dict[str, dict[str, int]] = {root_uuid: dict(_HOLDS), gpus[gpu_of[index]].uuid: {"VGPU": 2}}
        if index == 0 and fpga_held:
            allocations[fpga.uuid] = {"FPGA": 1}
        consumers.append(Consumer(_uuid(_CONSUMER, number, index), allocations))
    return Host(_root(root_uuid, name, len(consumers)), [*gpus, fpga], consumers)


def _whole_gpu_host(number: int) -> Host:
    held = int(number % 10 < 3)
    root_uuid, name = _uuid(_HOST + 1, number), f"gpu-host-{number:06d}"
    gpus = [
        Provider(_uuid(_DEVICE + 1, number, gpu), f"{name}-gpu-{gpu}", {"PGPU": Stock(1, held)}, ["CUSTOM_GPU_H100"])
        for gpu in range(WHOLE_GPUS)
    ]
    consumers = []
    if held:
        allocations: dict[str, dict[str, int]] = {root_uuid: dict(_HOLDS)}
        allocations.update({gpu.uuid: {"PGPU": 1} for gpu in gpus})
        consumers.append(Consumer(_uuid(_CONSUMER + 1, number), allocations))
    return Host(_root(root_uuid, name, held), gpus, consumers)


def _root(uuid: str, name: str, consumers: int) -> Provider:
    return Provider(
        uuid,
        name,
        {
            "VCPU": Stock(64, consumers * _HOLDS["VCPU"], allocation_ratio=4.0),
            "MEMORY_MB": Stock(524288, consumers * _HOLDS["MEMORY_MB"], reserved=4096),
            "DISK_GB": Stock(4000, consumers * _HOLDS["DISK_GB"], reserved=100),
        },
        ["COMPUTE_NODE", "HW_CPU_X86_AVX2", "COMPUTE_VOLUME_MULTI_ATTACH"],
    )


def gpu_uuid(host: int, gpu: int) -> str:
    """Return the uuid of a vGPU host's GPU."""
    return _uuid(_DEVICE, host, gpu)


def claims(hosts: int, *, seed: int = 1) -> Iterator[Consumer]:
    """Yield what new consumers ask for, each one vGPU and its share of a host, in a random order of GPUs.

    As many as fit: a claim that is refused is the server's fault.
    """
    free = [(host, gpu) for host in range(hosts) for gpu in range(GPUS) for _ in range(VGPUS - _MOST_HELD)]
    random.Random(seed).shuffle(free)
    for number, (host, gpu) in enumerate(free):
        yield Consumer(
            _uuid(_CLAIM, number),
            {_uuid(_HOST, host): dict(_CLAIMS), gpu_uuid(host, gpu): {"VGPU": 1}},
        )


def _uuid(kind: int, number: int, part: int = 0) -> str:
    return f"{kind:02x}{part:06x}-0000-4000-8000-{number:012x}"
