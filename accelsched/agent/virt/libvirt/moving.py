# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a server that goes from host to host: its disk, its config drive, its firmware's variables.

A disk is an overlay; the image that it stands on is fetched from Glance as for any server, and from the source only
where Glance has it no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accelsched import wire
from accelsched.agent import files
from accelsched.agent.images import Image
from accelsched.agent.virt.base import BuildError, Launch, Progress, RemoteFiles, RunningServer
from accelsched.agent.virt.libvirt import storage
from accelsched.agent.virt.libvirt.instance import PARTIAL, Instance

_BASE = "base"  # what the disk stands on


def offered(instance: Instance) -> Mapping[str, Path]:
    """Return the files of a server that another host may fetch, by name."""
    instance.own(instance.disk, instance.config_drive, instance.nvram)
    there = {path.name: path for path in (instance.disk, instance.config_drive, instance.nvram) if path.exists()}
    backing = storage.header(instance.disk).backing if instance.disk.exists() else None
    return there if backing is None else {**there, _BASE: backing}


def departing(instance: Instance) -> Mapping[str, Path]:
    """Return those of them that nobody writes to while the server runs."""
    there = offered(instance)
    return {name: path for name, path in there.items() if path not in (instance.disk, instance.nvram)}


def departure(instance: Instance) -> wire.Departure:
    """Return what another host must know of a server that runs."""
    told: wire.Departure = {"files": {name: path.stat().st_size for name, path in departing(instance).items()}}
    if instance.disk.exists():
        header = storage.header(instance.disk)
        told["disk"] = {"virtual_size": header.virtual_size, "on_image": header.backing is not None}
    return told


def make_ready(
    instance: Instance,
    assignment: wire.Assignment,
    source: RunningServer,
    cache: storage.ImageCache,
    progress: Progress,
) -> Path | None:
    """Make the files that a server finds where it goes as it runs: an empty disk of the same shape, which QEMU copies
    into, and its config drive.

    :returns: the disk, None when it has none
    :raises BuildError: when the disk stands on something else than its image
    :raises accelsched.errors.AccelschedError: as ``source`` does
    :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
    """
    there = source.departure()
    drive, sizes = instance.config_drive, there["files"]
    if drive.name in sizes and not drive.exists():
        partial = drive.with_name(f"{drive.name}{PARTIAL}")
        source.fetch(drive.name, sizes[drive.name], partial)
        partial.replace(drive)
        files.sync_directory(drive.parent)
    if "disk" not in there:
        return None
    image, base = assignment["image"], None
    if there["disk"]["on_image"]:
        if image is None:
            raise BuildError("the server's disk does not stand on its image")
        progress.step("fetching image")
        base = cache.fetch(Image.of(image), progress.check, lambda path: source.fetch(_BASE, sizes[_BASE], path))
    disk_format = image["disk_format"] if image is not None else ""
    storage.create_like(instance.disk, base, disk_format, there["disk"]["virtual_size"])
    return instance.disk


def take_over(
    instance: Instance,
    assignment: wire.Assignment,
    source: RemoteFiles,
    cache: storage.ImageCache,
    progress: Progress,
) -> None:
    """Fetch the files of a server that are not here yet; each is here whole or not at all.

    :raises BuildError: when its disk is not there, or stands on something else than its image
    :raises accelsched.errors.AccelschedError: as ``source`` does
    :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
    """
    if instance.fetched or instance.launch is not Launch.NEVER:
        return
    sizes = source.files()
    has_disk = assignment["image"] is not None or assignment["flavor"]["disk_gb"] > 0
    if has_disk and instance.disk.name not in sizes:
        raise BuildError(f"host {source.host} has no disk of the server")
    for path in (instance.disk, instance.config_drive, instance.nvram):
        if path.name not in sizes or path.exists():
            continue
        partial = path.with_name(f"{path.name}{PARTIAL}")
        source.fetch(path.name, sizes[path.name], partial)
        if path == instance.disk:
            _put_on_image(partial, assignment["image"], source, sizes, cache, progress)
        partial.replace(path)
        files.sync_directory(path.parent)
    instance.mark_fetched()


def _put_on_image(
    disk: Path,
    image: wire.ImageSpec | None,
    source: RemoteFiles,
    sizes: Mapping[str, int],
    cache: storage.ImageCache,
    progress: Progress,
) -> None:
    """Have a disk that stands on the source's copy of its image stand on this host's."""
    backing = storage.header(disk).backing
    if backing is None:
        return
    if image is None or backing.name != cache.path(image["id"]).name:
        raise BuildError("the server's disk does not stand on its image")
    base = cache.fetch(Image.of(image), progress.check, lambda path: source.fetch(_BASE, sizes[_BASE], path))
    storage.rebase(disk, base, image["disk_format"])
