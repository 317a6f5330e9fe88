# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How each device of a host can be handed out, and for each way that is closed why and what opens it. Pure: no I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from accelsched.agent.devices import passthrough
from accelsched.agent.devices.base import Device, Refusal
from accelsched.agent.devices.functions import Function
from accelsched.agent.devices.passthrough import Problem, Unit
from accelsched.agent.devices.watch import REFUSAL, STUCK
from accelsched.conf.device_spec import DeviceSpec

_NVIDIA = "10de"
_XILINX = "10ee"
_OF_FPGAS = ("dfl", "xilinx")
_FPGA_DRIVERS = {"dfl-pci": "dfl", "xclmgmt": "xilinx"}  # device drivers by the kernel's


@dataclass(frozen=True)
class Way:
    """One way of handing a device out."""

    how: str  # whole, virtual functions; vGPUs by mdev, vGPUs by vfio
    offers: Mapping[str, int]  # amounts by resource class; empty: it is not offered
    detail: str = ""
    reason: str | None = None  # why it is not offered
    remedy: str | None = None


@dataclass(frozen=True)
class Finding:
    """One device and its ways."""

    device: str  # address of the PCI function
    ids: str  # vendor and product, 10de:2230
    kind: str
    driver: str | None
    numa_node: int | None
    iommu_group: str | None
    pcie_root: str | None
    ways: Sequence[Way]


def explain(
    functions: Mapping[str, Function],
    specs: Sequence[DeviceSpec],
    taken: Collection[str] = (),
    *,
    shared: Iterable[Device] = (),
    refused: Mapping[str, Mapping[str, Refusal]] | None = None,
) -> list[Finding]:
    """Return what there is to say of every device that could be of interest, by address.

    Those are GPUs, accelerators, whatever has SR-IOV, and what the operator lists.

    :param functions: all of the host's, by address
    :param specs: ``[devices] pci_device_spec``
    :param taken: addresses of main functions that servers have
    :param shared: the devices that other drivers than ``pci`` offer
    :param refused: why those do not offer others, by driver and address; it has every driver that is enabled
    """
    refused = refused or {}
    parts: dict[str, list[Way]] = defaultdict(list)
    for device in shared:
        totals = {name: inventory["total"] for name, inventory in device.inventories.items()}
        parts[device.address or device.name].append(Way(_part(device.how), totals, _holds(device)))
    for how, refusals in refused.items():
        for address, refusal in refusals.items():
            parts[address].append(Way(_part(how), {}, reason=refusal.reason, remedy=refusal.remedy))
    units, problems = passthrough.arrange(functions, specs, taken)
    beside = {other.address for unit in units for other in unit.beside}
    concerned = {*(unit.provider for unit in units), *(problem.provider for problem in problems)}
    found = [
        Finding(
            device=function.address,
            ids=f"{function.vendor}:{function.product}",
            kind=_kind(function),
            driver=function.driver,
            numa_node=function.numa_node,
            iommu_group=function.iommu_group,
            pcie_root=function.pcie_root,
            ways=(*(parts[address] or _no_parts(function, refused)), *_whole(function, units, problems)),
        )
        for address, function in sorted(functions.items())
        if address in concerned or address in parts or (_matters(function) and address not in beside)
    ]
    others = sorted(parts.keys() - functions.keys())
    return found + [Finding(name, "", "virtual device", None, None, None, None, parts[name]) for name in others]


def _part(how: str) -> str:
    return f"FPGA region by {how}" if how in _OF_FPGAS else f"vGPUs by {how}"


def _holds(device: Device) -> str:
    """Return which interface an FPGA region has, and what is in it."""
    told = []
    for trait in sorted(device.traits, reverse=True):
        for kind, word in (("_REGION_", "interface"), ("_FUNCTION_ID_", "function")):
            if trait.startswith("CUSTOM_FPGA") and kind in trait:
                told.append(f"{word} {trait[-36:].replace('_', '-').lower()}")
    return ", ".join(told)


def _no_parts(function: Function, enabled: Collection[str]) -> Iterator[Way]:
    """Yield why a device is not shared, where it could be."""
    how = _FPGA_DRIVERS.get(function.driver or "")
    if how is not None and how not in enabled:
        yield Way(
            _part(how),
            {},
            reason=f"device driver {how} is not enabled",
            remedy=f"add {how} to [agent] device_drivers",
        )
    elif function.is_accelerator and function.vendor == _XILINX and function.driver is None:
        yield Way(
            _part("xilinx"),
            {},
            reason="no driver of XRT's is bound to it",
            remedy="install XRT on this host (drivers xclmgmt and xocl)",
        )
    yield from _no_vgpus(function)


def _matters(function: Function) -> bool:
    return function.physical_function is None and (
        function.is_gpu or function.is_accelerator or function.virtual_functions_max > 0
    )


def _no_vgpus(function: Function) -> Iterator[Way]:
    """Yield why a GPU is not shared, where it could be."""
    reason = remedy = None
    if not function.is_gpu or function.driver == "vfio-pci":
        return
    if function.vendor == _NVIDIA and function.driver != "nvidia":
        reason = f"its driver is {function.driver or 'none'}, not NVIDIA's vGPU manager"
        remedy = "for vGPUs, install the host driver of NVIDIA's vGPU software"
    elif function.virtual_functions_max and not function.virtual_functions:
        reason = f"it could have {function.virtual_functions_max} virtual functions and has none"
        remedy = (
            f"at every boot: /usr/lib/nvidia/sriov-manage -e {function.address}"
            if function.vendor == _NVIDIA
            else f"at every boot: echo N > /sys/bus/pci/devices/{function.address}/sriov_numvfs; then list them"
        )
    elif function.vendor == _NVIDIA:
        reason = "no vGPU manager: its driver knows neither mediated devices nor vGPU types"
        remedy = "for vGPUs, install the host driver of NVIDIA's vGPU software, not that for CUDA or graphics"
    if reason is not None:
        yield Way("vGPUs", {}, reason=reason, remedy=remedy)


def _kind(function: Function) -> str:
    if function.is_gpu:
        return "GPU"
    if function.is_accelerator:
        return "accelerator"
    return "SR-IOV card" if function.virtual_functions_max else "PCI function"


def _whole(function: Function, units: Iterable[Unit], problems: Iterable[Problem]) -> Iterator[Way]:
    """Yield the ways of handing out a card's function itself, and its virtual ones."""
    offered: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        if unit.provider != function.address:
            continue
        if unit.stuck:
            how = "whole" if unit.main.address == function.address else f"virtual function {unit.main.address}"
            yield Way(how, {}, reason=f"{unit.stuck} {STUCK}", remedy=REFUSAL.remedy)
        else:
            offered[unit.resource_class].append(unit)
    for resource_class, some in sorted(offered.items()):
        first = some[0]
        virtual = first.main.physical_function is not None
        with_ = ", ".join(other.address for other in first.beside)
        detail = ", ".join(unit.main.address for unit in some) if virtual else f"with {with_}" if with_ else ""
        yield Way("virtual functions" if virtual else "whole", {resource_class: len(some)}, detail)
    refused = [problem for problem in problems if problem.provider == function.address]
    for problem in refused:
        how = "whole" if problem.address == function.address else f"virtual function {problem.address}"
        yield Way(how, {}, reason=problem.reason, remedy=problem.remedy)
    if function.stuck and not offered and not refused and all(unit.provider != function.address for unit in units):
        yield Way("any", {}, reason=REFUSAL.reason, remedy=REFUSAL.remedy)
    elif not offered and not refused and all(unit.provider != function.address for unit in units):
        example = f'pci_device_spec = {{"address": "{function.address}"}}'
        yield Way(
            "whole", {}, reason="it is not listed in [devices] pci_device_spec", remedy=f"to hand it out: {example}"
        )
