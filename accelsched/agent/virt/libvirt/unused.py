# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which cached images are in use: those that disks stand on, and those that servers were given to boot from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from accelsched import wire
from accelsched.agent.virt.base import rescue_image
from accelsched.agent.virt.libvirt import storage

_QCOW2 = b"QFI\xfb"


def images_in_use(instances: Path, cache: Path, assignments: Iterable[wire.Assignment]) -> set[str]:
    """Return the names of the files in the cache that are in use on this host.

    :param instances: directory of the servers' directories
    :param assignments: all that is wanted on this host; a server that is booted again may need its kernel again
    :raises accelsched.agent.virt.base.BuildError: when a disk does not tell what it stands on
    """
    used: set[str] = set()
    for assignment in assignments:
        for image in (assignment["image"], rescue_image(assignment)):
            if image is not None:
                properties = image["properties"]
                used |= {image["id"], properties.get("kernel_id", ""), properties.get("ramdisk_id", "")}
    used = {image_id.lower() for image_id in used if image_id}
    for disk in instances.glob("*/*"):
        if disk.parent != cache and _is_qcow2(disk):
            backing = storage.image_info(disk, "qcow2").get("backing-filename")
            if backing is not None and Path(backing).parent == cache:
                used.add(Path(backing).name)
    return used


def _is_qcow2(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_QCOW2)) == _QCOW2
    except OSError:  # it went just now, or is no file
        return False
