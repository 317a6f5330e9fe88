# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading sysfs, where any file may vanish between two looks."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PCIE_ROOT = re.compile(r"pci([0-9a-f]{4,8}:[0-9a-f]{2})")


def read(path: Path) -> str | None:
    """Return an attribute without its line end; None when there is none (any more) or it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return None


def entries(path: Path) -> list[Path]:
    """Return what a directory holds, by name; nothing when it is not there."""
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def write(path: Path, text: str) -> None:
    """Write an attribute in one write(2), as the kernel wants it, without ever creating a file.

    :raises OSError: as the kernel answers
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def numa_node(function: Path) -> int | None:
    """Return the NUMA node that a PCI function is on; None when the firmware does not tell."""
    return number(function / "numa_node")


def pcie_root(function: Path) -> str | None:
    """Return the host bridge that a PCI function is below, as 0000:40; None for what is below none."""
    matches = (_PCIE_ROOT.fullmatch(part) for part in function.resolve().parts)
    return next((match[1] for match in matches if match), None)


def pci_id(path: Path) -> str | None:
    """Return a PCI id attribute such as ``vendor`` as four hexadecimal digits in lower case."""
    text = read(path)
    if text is None or not text.startswith("0x"):
        return None
    return text[2:].lower().zfill(4)


def link_name(path: Path) -> str | None:
    """Return the name of what a link leads to, such as a function's driver; None when there is no link."""
    try:
        return path.readlink().name
    except OSError:
        return None


def number(path: Path) -> int | None:
    """Return an attribute that is a number from 0 on; None when it is not there, or no number."""
    text = read(path)
    return int(text) if text is not None and text.isdecimal() else None
