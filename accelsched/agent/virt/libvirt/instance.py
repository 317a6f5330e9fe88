# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a server has on disk besides its domain: ``STATE_PATH/instances/UUID/``.

======================  ========================================================================
disk                    qcow2 overlay
disk.config             config drive
disk.ID                 copy of the disk as it was before the move of that uuid, which may be taken back
disk.rescue             disk that a server which is rescued boots from
disk.config.rescue      config drive that it finds then, if its guest is told a password
nvram                   variables of the firmware, if that is UEFI
snapshot                copy of the disk, while it is made and uploaded
console.log             serial console, written and bounded by virtlogd
launched                boot id of the host when the domain was started last
order                   the last order that was carried out, JSON
incoming                what its domain would be if it were built here, while it is to come as it runs: all is ready
fetched                 there when all files were fetched from the host that the server came from
incarnation             which incarnation of the server it is, in decimal; not there for the first
======================  ========================================================================
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from accelsched.agent import files
from accelsched.agent.privileged import operations
from accelsched.agent.virt.base import NO_ORDER, CarriedOut, Launch

PARTIAL = ".part"  # ends the name of a file that is not whole yet

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Instance:
    """The directory of one server."""

    def __init__(self, instances: Path, server_uuid: str) -> None:
        if not _UUID.fullmatch(server_uuid):
            raise ValueError(f"{server_uuid!r} is not a server's uuid")
        self.directory = instances / server_uuid
        self.disk = self.directory / "disk"
        self.config_drive = self.directory / "disk.config"
        self.nvram = self.directory / "nvram"
        self.rescue_disk = self.directory / "disk.rescue"
        self.rescue_config_drive = self.directory / "disk.config.rescue"
        self.snapshot = self.directory / "snapshot"
        self.console = self.directory / "console.log"
        self.incoming = self.directory / "incoming"
        self._launched = self.directory / "launched"
        self._order = self.directory / "order"
        self._fetched = self.directory / "fetched"
        self._incarnation = self.directory / "incarnation"

    def create(self, incarnation: int = 1) -> None:
        """Make the directory: the first trace of a server, and the last to go."""
        # Traversable, so that QEMU's user reaches the files libvirt gave to it, but not readable.
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if incarnation > self.incarnation:  # before anything else of it is there
            files.write_atomically(self._incarnation, str(incarnation).encode())

    @property
    def incarnation(self) -> int:
        """Which incarnation of the server this is."""
        try:
            return int(self._incarnation.read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return 1

    def own(self, *paths: Path) -> None:
        """Have files of the server be readable that QEMU, or libvirt as root, has made."""
        for path in paths:
            if path.exists() and not os.access(path, os.R_OK):
                operations.own_instance_file(self.directory.name, path.name)

    def console_tail(self, limit: int) -> str:
        """Return the end of the console's log, as :func:`tail` does."""
        self.own(self.console, self.console.with_name(f"{self.console.name}.0"))
        return tail(self.console, limit)

    def remove(self) -> None:
        """Remove the directory and all in it."""
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def kept_disk(self, move: str) -> Path:
        """Return where the disk is kept as it was before a move.

        :param move: its uuid
        """
        if not _UUID.fullmatch(move):
            raise ValueError(f"{move!r} is not a move's uuid")
        return self.directory / f"disk.{move}"

    @property
    def kept_disks(self) -> frozenset[str]:
        """The uuids of the moves from before which there is a copy of the disk, or a part of one."""
        names = (path.name.removeprefix("disk.").removesuffix(PARTIAL) for path in self.directory.glob("disk.*"))
        return frozenset(name for name in names if _UUID.fullmatch(name))

    def forget_disks(self, wanted: str | None) -> None:
        """Remove those copies but for that of one move."""
        for move in self.kept_disks - {wanted}:
            path = self.kept_disk(move)
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}{PARTIAL}").unlink(missing_ok=True)

    def mark_launched(self) -> None:
        """Remember that the domain runs, in this boot of the host."""
        if self.launch is not Launch.THIS_BOOT:
            files.write_atomically(self._launched, boot_id().encode())

    def mark_fetched(self) -> None:
        """Remember that all files were fetched from the host that the server came from."""
        files.write_atomically(self._fetched, b"")

    @property
    def fetched(self) -> bool:
        """Whether they were."""
        return self._fetched.exists()

    def note_order(self, order: CarriedOut) -> None:
        """Remember an order that was carried out, or tried."""
        text = json.dumps({"number": order.number, "fault": order.fault})
        files.write_atomically(self._order, text.encode())

    @property
    def order(self) -> CarriedOut:
        """The last order that was carried out; one whose record is damaged is carried out once more."""
        try:
            record = json.loads(self._order.read_bytes())
            return CarriedOut(int(record["number"]), record["fault"])
        except (OSError, ValueError, KeyError, TypeError):
            return NO_ORDER

    @property
    def launch(self) -> Launch:
        """When the domain was started last."""
        try:
            launched = self._launched.read_text("ascii").strip()
        except FileNotFoundError:
            return Launch.NEVER
        return Launch.THIS_BOOT if launched == boot_id() else Launch.EARLIER_BOOT


def boot_id() -> str:
    """Return what the kernel calls this boot of the host."""
    return _BOOT_ID.read_text("ascii").strip()


def server_uuids(instances: Path) -> list[str]:
    """Return the servers that have a directory."""
    try:
        return sorted(path.name for path in instances.iterdir() if _UUID.fullmatch(path.name))
    except FileNotFoundError:
        return []


def tail(path: Path, limit: int) -> str:
    """Return the end of a file that virtlogd rolls over: the file, after as much of its predecessor as fits.

    :param limit: bytes
    """
    data = b""
    for part in (path, path.with_name(f"{path.name}.0")):
        try:
            with part.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(size - (limit - len(data)), 0))
                data = file.read(limit - len(data)) + data
        except OSError:
            break
        if len(data) >= limit:
            break
    return data.decode("utf-8", errors="replace")
