# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a server boots from and is told by: disks, config drives, kernels."""

from __future__ import annotations

from pathlib import Path

from oslo_config import cfg

from accelsched import wire
from accelsched.agent import files
from accelsched.agent.images import Image
from accelsched.agent.virt import base
from accelsched.agent.virt.libvirt import configdrive, instance, storage
from accelsched.agent.virt.libvirt.domain import DirectBoot


class Media:
    """Makes them in a server's directory, of images in the cache. What is there is left as it is."""

    def __init__(self, conf: cfg.ConfigOpts, cache: storage.ImageCache) -> None:
        self._conf = conf
        self._cache = cache

    def disk(self, assignment: wire.Assignment, files_: instance.Instance, progress: base.Progress) -> Path | None:
        """Make the disk; return where it is, None for a server without one."""
        image, size_gb, restore = assignment["image"], assignment["flavor"]["disk_gb"], assignment.get("restore")
        if files_.disk.exists():
            return files_.disk
        if restore is not None:
            if restore["disk_format"] != "qcow2":
                raise base.BuildError(f"image {restore['id']}, of the server's disk, is not qcow2 any more")
            self._cache.save(Image.of(restore), files_.disk, progress.check)
            return files_.disk
        if image is None:
            if size_gb == 0:
                return None
            storage.create_disk(files_.disk, None, "", size_gb)
            return files_.disk
        cached = self._fetch(image, progress)
        progress.step("making disk")
        storage.create_disk(files_.disk, cached, image["disk_format"], size_gb)
        return files_.disk

    def rescue_disk(self, image: wire.ImageSpec, files_: instance.Instance, progress: base.Progress) -> None:
        """Make the disk to be rescued with, as large as its image, unless it is there."""
        storage.create_disk(files_.rescue_disk, self._fetch(image, progress), image["disk_format"], 0)

    def rescue_config_drive(self, assignment: wire.Assignment, files_: instance.Instance) -> None:
        """Make the config drive that tells a guest its password while it is rescued, unless it is there.

        The password is told with the order, and with nothing after that was carried out: the drive has to last.
        """
        order = assignment["order"]
        if "admin_pass" in order and not files_.rescue_config_drive.exists():
            told: wire.Assignment = {**assignment, "admin_pass": order["admin_pass"]}
            self.config_drive(files_.rescue_config_drive, told)

    def config_drive(self, path: Path, assignment: wire.Assignment) -> None:
        """Write a config drive."""
        image = configdrive.iso_image(configdrive.contents(assignment, self.network(assignment)))
        files.write_atomically(path, image, mode=0o600)

    def direct_boot(self, image: wire.ImageSpec | None, progress: base.Progress) -> DirectBoot | None:
        """Fetch the kernel of an image that boots without firmware; None of any other."""
        properties = image["properties"] if image else {}
        kernel_id, ramdisk_id = properties.get("kernel_id"), properties.get("ramdisk_id")
        if not kernel_id:
            return None
        progress.step("fetching kernel")
        kernel = self._cache.fetch_by_id(kernel_id, progress.check)
        initrd = self._cache.fetch_by_id(ramdisk_id, progress.check) if ramdisk_id else None
        command_line = properties.get("os_command_line") or self._conf.libvirt.kernel_args
        return DirectBoot(kernel, initrd, command_line)

    def network(self, assignment: wire.Assignment) -> str | None:
        """Return the network that a server gets an interface on."""
        network: str | None = self._conf.libvirt.network
        return network if assignment.get("networks") == "auto" else None

    def _fetch(self, image: wire.ImageSpec, progress: base.Progress) -> Path:
        return self._cache.fetch(Image.of(image), progress.check)


def keep_disk(kept: wire.KeptDisk | None, files_: instance.Instance, progress: base.Progress) -> None:
    """Copy a disk that may be wanted again as it is now, or put the copy in its place."""
    if kept is None:
        return
    copy = files_.kept_disk(kept["id"])
    if not kept["restore"]:
        progress.step("copying disk")
        storage.copy(files_.disk, copy, progress.check)
    elif copy.exists():
        copy.replace(files_.disk)
        files.sync_directory(files_.directory)
