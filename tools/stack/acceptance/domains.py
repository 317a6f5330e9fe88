# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What libvirt and the host's files say of a server, without asking accelsched."""

from __future__ import annotations

import re
from pathlib import Path

import libvirt
from lxml import etree

from stack.hypervisor import URI

# What is not there is no error here.
libvirt.registerErrorHandler(lambda _context, _error: None, None)

_READY = "accelsched-guest: ready"
_BOOT = re.compile(r"root vda .* boot (\d+)")


class Domains:
    """The domains of a stack's servers.

    :param instances: directory of the servers' files
    """

    def __init__(self, instances: Path) -> None:
        self._instances = instances
        self._connection = libvirt.open(URI)

    def power(self, uuid: str) -> str:
        """Return what a server's domain does: running, paused, saved, off, or none when there is no domain."""
        try:
            domain = self._connection.lookupByUUIDString(uuid)
            if domain.isActive():
                return "paused" if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED else "running"
            return "saved" if domain.hasManagedSaveImage() else "off"
        except libvirt.libvirtError:
            return "none"

    def disks(self, uuid: str) -> list[str]:
        """Return the names of the files that are a domain's disks, in the guest's order."""
        xml = self._connection.lookupByUUIDString(uuid).XMLDesc()
        return [Path(source.get("file", "")).name for source in etree.fromstring(xml).iterfind(".//disk/source")]

    def plugged(self, uuid: str) -> int:
        """Return how many devices a domain's mark says were plugged into it."""
        xml = self._connection.lookupByUUIDString(uuid).XMLDesc()
        return len(list(etree.fromstring(xml).iterfind(".//{*}device[@plug]")))

    def memory_mb(self, uuid: str) -> int:
        """Return how much memory a domain has."""
        return int(self._connection.lookupByUUIDString(uuid).maxMemory()) // 1024

    def disk_gb(self, uuid: str) -> int:
        """Return how large the guest's first disk is, in GiB."""
        return int(self._connection.lookupByUUIDString(uuid).blockInfo("vda")[0]) // (1 << 30)

    def copies_of_disk(self, uuid: str) -> int:
        """Return how many copies of a server's disk there are from before its moves."""
        return len(list((self._instances / uuid).glob("disk.*-*")))

    def has_files(self, uuid: str) -> bool:
        """Return whether anything of a server is left on the host's disk."""
        return (self._instances / uuid).exists()

    def console(self, uuid: str) -> str:
        """Return what a server's guest said on its serial console; nothing when there is none."""
        try:
            return (self._instances / uuid / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    def starts(self, uuid: str) -> int:
        """Return how often a server's guest said that it is ready."""
        return self.console(uuid).count(_READY)

    def boots_of_disk(self, uuid: str) -> int:
        """Return how often the disk was booted that a server's guest found last; the guest counts on the disk."""
        counts = _BOOT.findall(self.console(uuid))
        return int(counts[-1]) if counts else 0
