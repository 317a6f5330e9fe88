# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``nvidia-smi`` tells of a GPU's vGPU types and MIG instances, and the two things that it is told to do.

Texts as documented in NVIDIA's Virtual GPU Software User Guide and MIG User Guide; no NVIDIA hardware was at hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelsched.agent.devices.base import RefusedError
from accelsched.agent.privileged import operations

_FIELD = re.compile(r"^\s*([^:]+?)\s*: (.*?)\s*$", re.MULTILINE)
# GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1
_PLACEMENTS = re.compile(r"^GPU\s+\d+ Profile ID\s+(\d+) Placements?\s*: \{([\d,]+)\}:(\d+)\s*$", re.MULTILINE)
# |   0  MIG 1g.5gb          19        9          2:1     |
_INSTANCE = re.compile(r"^\|\s+\d+\s+MIG (\d+)g\S*\s+(\d+)\s+(\d+)\s+(\d+):(\d+)\s+\|\s*$", re.MULTILINE)
# |   0  MIG 1g.5gb       19     7/7        4.75       No     14     0     0   |
_PROFILE = re.compile(r"^\|\s+\d+\s+MIG (\d+)g\S*\s+(\d+)\s+\d+/\d+\s", re.MULTILINE)


@dataclass(frozen=True)
class VgpuType:
    """A type of vGPU that a GPU supports, whether or not it has room for one."""

    number: int  # as sysfs writes it
    name: str  # NVIDIA L40S-8Q
    most: int  # how many the GPU can have, of this type alone
    profile: int | None  # of the MIG instance that it needs; None: it shares the GPU's time
    most_per_instance: int  # how many share one MIG instance
    framebuffer_mib: int | None


@dataclass(frozen=True)
class Profile:
    """A kind of MIG instance: what it takes, and where it may begin."""

    compute_slices: int
    memory_slices: int
    starts: Sequence[int]


@dataclass(frozen=True)
class Instance:
    """A MIG instance that is there."""

    number: int
    profile: int
    start: int


class NvidiaSmi:
    """NVIDIA's command."""

    def vgpu_types(self, address: str) -> list[VgpuType]:
        """Return the vGPU types that a GPU supports.

        :param address: of its physical function
        :raises DeviceError: when the command cannot tell
        """
        return parse_types(_ask("types", address))

    def profiles(self, address: str) -> Mapping[int, Profile]:
        """Return a GPU's kinds of MIG instances by their ids; none when its MIG mode is off.

        :raises DeviceError: when the command cannot tell
        """
        table = _ask("profiles", address, nothing="No MIG-enabled devices")
        return parse_profiles(table, _ask("placements", address)) if table else {}

    def instances(self, address: str) -> list[Instance]:
        """Return the MIG instances of a GPU.

        :raises DeviceError: when the command cannot tell
        """
        return parse_instances(_ask("instances", address, nothing="No GPU instances found"))

    def create_instance(self, address: str, profile: int, start: int) -> None:
        """Make a MIG instance at a place, with one compute instance that takes all of it.

        :raises DeviceError: when it was not made
        """
        _ask("create", address, profile, start)

    def destroy_instance(self, address: str, number: int) -> None:
        """Remove a MIG instance and what is in it.

        :raises DeviceError: when it is in use
        """
        _ask("destroy compute", address, number)
        _ask("destroy", address, number)


def _ask(what: str, address: str, *numbers: int, nothing: str | None = None) -> str:
    """Return what the command prints.

    :param nothing: what it says, whatever its status, when there is nothing to tell; "" is returned then
    """
    status, text, complaint, command = operations.nvidia_smi(what, address, list(numbers))
    said = " ".join((text + complaint).split())[-200:]
    if nothing is not None and nothing in said:
        return ""
    if status:
        raise RefusedError(
            f"{command} ended with status {status}: {said}", "run that command, and see what NVIDIA's driver has to say"
        )
    return str(text)


def parse_types(text: str) -> list[VgpuType]:
    """Return the types of ``nvidia-smi vgpu -s -v``."""
    blocks: list[dict[str, str]] = []
    for key, value in _FIELD.findall(text):
        if key == "vGPU Type ID":
            blocks.append({})
        if blocks:
            blocks[-1][key] = value
    return [
        VgpuType(
            number=int(block["vGPU Type ID"], 0),
            name=block["Name"],
            most=int(block["Max Instances"]),
            profile=_number(block.get("GPU Instance Profile ID")),
            most_per_instance=_number(block.get("Max Instances Per GI")) or 1,
            framebuffer_mib=_number((block.get("FB Memory") or "").removesuffix(" MiB")),
        )
        for block in blocks
        if block.keys() >= {"Name", "Max Instances"} and block["Max Instances"].isdecimal()
    ]


def parse_profiles(table: str, placements: str) -> dict[int, Profile]:
    """Return the kinds of MIG instances of ``nvidia-smi mig -lgip`` and ``-lgipp``, by their ids."""
    compute = {int(number): int(slices) for slices, number in _PROFILE.findall(table)}
    return {
        int(number): Profile(compute[int(number)], int(size), tuple(map(int, starts.split(","))))
        for number, starts, size in _PLACEMENTS.findall(placements)
        if int(number) in compute
    }


def parse_instances(table: str) -> list[Instance]:
    """Return the MIG instances of ``nvidia-smi mig -lgi``."""
    return [
        Instance(int(number), int(profile), int(start)) for _, profile, number, start, _ in _INSTANCE.findall(table)
    ]


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
