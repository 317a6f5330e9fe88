# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Random questions for allocation candidates, most of them valid."""

from __future__ import annotations

import placement_names as names
from placement_draws import Draw

Query = list[tuple[str, str]]

_SUFFIXES = ([""], [""], ["1"], ["", "1"], ["1", "2"], ["", "1", "2"], ["", "1", "2", "3"], ["1", "2", "3", "4"])
_NAMED = ("_A", "-b", "x" * 64, "_COMPUTE")


def candidate_query(draw: Draw, minor: int, fleet: names.Fleet) -> Query:
    """Return the parameters of a question that this version understands, but for a rare mistake."""
    if draw.chance(35):
        return [
            ("resources", amounts(draw)),
            *([("limit", str(draw.number(1, 3)))] if minor >= 16 and draw.chance(20) else []),
        ]
    suffixes = draw.pick(_SUFFIXES) if minor >= 25 else [""]
    if minor >= 33 and draw.chance(20):
        suffixes = [_NAMED[int(suffix) - 1] if suffix else "" for suffix in suffixes]
    query: Query = []
    for suffix in suffixes:
        query += _group(draw, suffix, minor, fleet)
    named = [suffix for suffix in suffixes if suffix]
    if (len(named) > 1 and not draw.chance(5)) or (minor >= 25 and draw.chance(10)):
        query.append(("group_policy", draw.pick(["none", "isolate"])))
    if minor >= 35 and draw.chance(12):
        query.append(
            ("root_required", ",".join(draw.pick(["", "!"]) + names.trait(draw) for _ in range(draw.pick([1, 1, 2]))))
        )
    for _ in range(draw.pick([0, 0, 1, 2]) if minor >= 36 and named else 0):
        query.append(("same_subtree", ",".join(draw.some(named, 4, 1))))
    if minor >= 16 and draw.chance(15):
        query.append(("limit", str(draw.pick([1, 2, 3, 5, 1000]))))
    return query


def amounts(draw: Draw) -> str:
    """Return the value of ``resources``."""
    chosen = draw.some(names.CLASSES, 3, 1) if draw.chance(25) else [draw.pick(names.CLASSES)]
    if draw.chance(2):
        chosen.append(names.resource_class(draw))
    return ",".join(f"{name}:{draw.pick([1, 1, 1, 1, 2, 2, 3, 4, 8])}" for name in chosen)


def traits(draw: Draw, *, forbidden: bool, any_of: bool) -> str:
    """Return the value of ``required``."""
    if any_of and draw.chance(35):
        return "in:" + ",".join(names.trait(draw) for _ in range(draw.pick([1, 2, 2, 3])))
    return ",".join(
        ("!" if forbidden and draw.chance(30) else "") + names.trait(draw) for _ in range(draw.pick([1, 1, 1, 2]))
    )


def member_of(draw: Draw, *, forbidden: bool) -> str:
    """Return the value of ``member_of``."""
    sign = "!" if forbidden and draw.chance(35) else ""
    if draw.chance(40):
        return sign + "in:" + ",".join(names.aggregate(draw) for _ in range(draw.pick([1, 2, 3])))
    return sign + names.aggregate(draw)


def _group(draw: Draw, suffix: str, minor: int, fleet: names.Fleet) -> Query:
    parts: Query = []
    resourceless = minor >= 36 and draw.chance(12) if suffix else draw.chance(2)
    if not resourceless:
        parts.append((f"resources{suffix}", amounts(draw)))
    for _ in range(draw.pick([0, 0, 0, 0, 0, 1, 1, 2]) if minor >= 17 else 0):
        parts.append((f"required{suffix}", traits(draw, forbidden=minor >= 22, any_of=minor >= 39)))
    for _ in range(draw.pick([0, 0, 0, 0, 0, 0, 0, 1, 2 if minor >= 24 else 1]) if minor >= 21 else 0):
        parts.append((f"member_of{suffix}", member_of(draw, forbidden=minor >= 32)))
    if minor >= 31 and draw.chance(5):
        parts.append((f"in_tree{suffix}", names.provider(draw, fleet)))
    return parts
