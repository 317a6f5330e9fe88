# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Sets of CPUs as text, as the kernel, libvirt and Nova write them: ``0-3,8,^2``."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST = 8192
"""CPU numbers are below this, as the kernel's are."""

_PART = re.compile(r"(?P<not>\^)?(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")


def parse(text: str) -> frozenset[int]:
    """Return the CPUs of a list of numbers, ranges and, after ``^``, exclusions, which count wherever they stand.

    :param text: e.g. ``0-3,8,^2``
    :raises ValueError: saying what is wrong
    """
    chosen: set[int] = set()
    excluded: set[int] = set()
    for part in text.split(","):
        if not part.strip():
            continue
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()[:50]!r} is neither a CPU, a range of CPUs nor '^' and one of these")
        first = int(match["first"])
        last = int(match["last"] or first)
        if last < first or last >= MOST:
            raise ValueError(f"{part.strip()!r} is no range of CPU numbers below {MOST}")
        (excluded if match["not"] else chosen).update(range(first, last + 1))
    return frozenset(chosen - excluded)


def format(cpus: Iterable[int]) -> str:
    """Return what :func:`parse` reads, with ranges where CPUs follow each other."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
