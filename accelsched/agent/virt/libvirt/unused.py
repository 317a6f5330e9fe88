# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which cached images are in use: those that disks stand on, and those that servers were given to boot from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from accelsched import wire
from accelsched.agent.virt.base import BuildError, rescue_image
from accelsched.agent.virt.libvirt import storage


def images_in_use(instances: Path, cache: Path, assignments: Iterable[wire.Assignment]) -> set[str]:
    """Return the names of the files in the cache that are in use on this host.

    :param instances: directory of the servers' directories
    :param assignments: all that is wanted on this host; a server that is booted again may need its kernel again
    """
    used: set[str] = set()
    for assignment in assignments:
        for image in (assignment["image"], rescue_image(assignment)):
            if image is not None:
                properties = image["properties"]
                used |= {image["id"], properties.get("kernel_id", ""), properties.get("ramdisk_id", "")}
    used = {image_id.lower() for image_id in used if image_id}
    for disk in instances.glob("*/*"):
        if disk.parent != cache and (backing := _backing(disk)) is not None and backing.parent == cache:
            used.add(backing.name)
    return used


def _backing(path: Path) -> Path | None:
    """Return what a file stands on, if it is a disk that stands on another file."""
    try:
        return storage.header(path).backing
    except (OSError, BuildError):  # it went just now, or is no disk
        return None
