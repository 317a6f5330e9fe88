# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The lab's report: the ways in which a device comes to a guest, what is seen of each, and whether it was seen."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labvm.machine import Machine

NAME = "report.rst"


@dataclass
class Report:
    """What a run has shown so far."""

    versions: dict[str, str] = field(default_factory=dict)  # of what it was made with
    others: list[dict[str, str]] = field(default_factory=list)  # of the machines that servers go between
    _seen: dict[str, str] = field(default_factory=dict)  # by way, what is seen when it works
    _failed: set[str] = field(default_factory=set)

    def add(self, way: str, seen: str, *, failed: bool) -> None:
        """Note how a part of a test of one way went."""
        self._seen.setdefault(way, seen)
        if failed:
            self._failed.add(way)

    def text(self) -> str:
        """Return the report as reStructuredText; nothing when no way was tried."""
        if not self._seen:
            return ""
        rows = [("way", "what is seen", "result")]
        rows += [(way, seen, "FAILED" if way in self._failed else "passed") for way, seen in self._seen.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rule = "  ".join("=" * width for width in widths)
        head, *body = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        made = f"Made with {_named(self.versions)}."
        for other in self.others:
            beside = {name: version for name, version in other.items() if version != self.versions.get(name)}
            made += f"\nMoves from one host to another: {_named(beside)}."
        return "\n".join([made, "", rule, head, rule, *body, rule, ""])


def versions(machine: Machine, checkout: Path) -> dict[str, str]:
    """Return what a run in a machine is made with."""
    told = machine.channel.check(["sh", "-c", "uname -r; virsh --quiet version"], timeout=300).splitlines()
    found = {line.partition(": ")[0]: line.partition(": ")[2] for line in told[1:]}
    describe = ["git", "-C", str(checkout), "describe", "--always", "--tags"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "accelsched": commit or "without git",
        "Linux": told[0],
        "libvirt": found.get("Using library", "").removeprefix("libvirt "),
        "QEMU": found.get("Running hypervisor", "").removeprefix("QEMU "),
        "on": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _named(versions_: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions_.items()) or "nothing that is known"
