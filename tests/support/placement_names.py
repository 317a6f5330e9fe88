# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The names that random dialogues use."""

from __future__ import annotations

import os
from typing import NamedTuple

from placement_draws import Draw

SHARING = os.environ.get("ACCELSCHED_COMPARE_SHARING", "1") == "1"
"""Whether providers share by aggregates."""

SHARES = "MISC_SHARES_VIA_AGGREGATE"
CUSTOM_CLASSES = ("CUSTOM_C0", "CUSTOM_C1")
CUSTOM_TRAITS = ("CUSTOM_T0", "CUSTOM_T1", "CUSTOM_T2")
CLASSES = ("VCPU", "VGPU", *CUSTOM_CLASSES)
TRAITS = (*CUSTOM_TRAITS, "HW_CPU_X86_AVX", *((SHARES,) if SHARING else ()))
UNKNOWN_CLASSES = ("CUSTOM_NONE", "vcpu", "FPGA", "NO_SUCH", "CUSTOM_É", "")
UNKNOWN_TRAITS = ("CUSTOM_NONE", "custom_t0", "NO_SUCH", "CUSTOM_É", "CUSTOM_T0 ", "")
PROJECTS = ("p1", "p2", "ünïcode")
USERS = ("u1", "u2")
TYPES = ("INSTANCE", "MIGRATION", "T_1")
PROVIDERS = 6
CONSUMERS = 4
AGGREGATES = 3


class Fleet(NamedTuple):
    """What a dialogue makes first: for each provider the classes that it has inventories of."""

    stock: tuple[tuple[str, ...], ...]


def provider(draw: Draw, fleet: Fleet) -> str:
    """Return a provider, most often one of the fleet."""
    if draw.chance(7):
        return draw.pick(["<p5>", "<p0 upper>", "<p0 bare>", "<c0>", "not-a-uuid", "%C3%A9", "<p1 upper>"])
    return f"<p{draw.number(0, len(fleet.stock) - 1)}>"


def consumer(draw: Draw) -> str:
    """Return a consumer."""
    if draw.chance(5):
        return draw.pick(["<c0 upper>", "<c0 bare>", "<c1 bare>", "not-a-uuid", "<p0>", "%C3%A9"])
    return f"<c{draw.number(0, CONSUMERS - 1)}>"


def aggregate(draw: Draw) -> str:
    """Return an aggregate."""
    if draw.chance(4):
        return draw.pick(["<a0 upper>", "<a0 bare>", "<p0>", "not-a-uuid", ""])
    return f"<a{draw.number(0, AGGREGATES - 1)}>"


def resource_class(draw: Draw) -> str:
    """Return a resource class, most often one that there is."""
    return draw.pick(UNKNOWN_CLASSES) if draw.chance(4) else draw.pick(CLASSES)


def stocked_class(draw: Draw, fleet: Fleet, uuid: str) -> str:
    """Return a resource class, most often one that this provider began with."""
    index = int(uuid[2]) if uuid.startswith("<p") else len(fleet.stock)
    if draw.chance(10) or index >= len(fleet.stock):
        return resource_class(draw)
    return draw.pick(fleet.stock[index])


def trait(draw: Draw) -> str:
    """Return a trait, most often one that there is."""
    return draw.pick(UNKNOWN_TRAITS) if draw.chance(3) else draw.pick(TRAITS)
