# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Disks: images from Glance, downloaded once and checked, and a qcow2 overlay for each server."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from oslo_utils.imageutils import format_inspector

from accelsched import errors
from accelsched.agent import files
from accelsched.agent.images import Image, ImageClient, ImageError, verify_checksum
from accelsched.agent.virt.base import BuildError, SnapshotError
from accelsched.agent.virt.libvirt.instance import PARTIAL

GIB = 1 << 30

# Formats of images that a disk can be made of, by the format of the file.
_FORMATS = {"qcow2": "qcow2", "raw": "raw", "ami": "raw", "iso": "raw", "aki": "raw", "ari": "raw"}
# What the inspector calls a raw file that holds a partition table or a CD's file system.
_RAW = {"raw", "gpt", "iso"}
# qemu-img looks at files whose contents are a stranger's: bounds on its time (CPU seconds) and memory (bytes).
_QEMU_IMG = ("prlimit", "--cpu=30", f"--as={GIB}", "qemu-img")
_QEMU_IMG_TIMEOUT_S = 120
_LOOK_AGAIN_S = 0.5
_USED = ".used"
_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")  # magic, version, where the backing file's name is and its length, ..., size
_IMAGE_ID = re.compile(r"[0-9a-fA-F-]{1,64}")


class ImageCache:
    """Checked images, one file each, shared by the disks of all servers that use them."""

    def __init__(self, directory: Path, client: ImageClient, max_bytes: int) -> None:
        self.directory = directory
        self._client = client
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        for partial in directory.glob(f"*{PARTIAL}"):  # of a download that was killed
            partial.unlink(missing_ok=True)

    def fetch(self, image: Image, check: Callable[[], None], otherwise: Callable[[Path], None] | None = None) -> Path:
        """Return the file of an image, downloaded unless it is there already; who comes second waits for the first.

        :param check: called between chunks; what it raises ends the download
        :param otherwise: makes the file when Glance has no such image any more
        :raises BuildError: when the image is too large, is not what its checksum says, is not safe to use, or Glance
            does not answer
        :raises accelsched.errors.NotFoundError: when there is no such image
        """
        path = self.path(image.id)
        with self._lock_of(path.name):
            check()
            if not path.exists():
                self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
                self._download(image, path, check, otherwise)
            _use(path)
        return path

    def path(self, image_id: str) -> Path:
        """Return where an image's file is, if it is there."""
        return self.directory / _file_name(image_id)

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())

    def save(self, image: Image, path: Path, check: Callable[[], None]) -> None:
        """Make an image a file of somebody's own, outside the cache, by the rules of :meth:`fetch`."""
        self._download(image, path, check)

    def fetch_by_id(self, image_id: str, check: Callable[[], None]) -> Path:
        """Return the file of an image, asking Glance what it is only when it is not there."""
        path = self.path(image_id)
        with self._lock_of(path.name):
            if path.exists():
                _use(path)
                return path
        try:
            image = self._client.show(image_id)
        except errors.UnavailableError as exc:
            raise BuildError(f"image {image_id} could not be looked up") from exc
        return self.fetch(image, check)

    def remove_unused(self, used: Collection[str], age_s: float) -> list[str]:
        """Remove images that nobody uses, and that nobody has for long.

        :param used: names of those in use; they are young again
        :param age_s: seconds since an image was used last
        :returns: names of those that were removed
        """
        removed = []
        for path in sorted(self.directory.glob("*")):
            if path.suffix in (PARTIAL, _USED):
                continue
            with self._lock_of(path.name):
                if path.name in used:
                    _use(path)
                elif time.time() - _last_use(path) > age_s:
                    path.unlink()
                    _mark_of(path).unlink(missing_ok=True)
                    removed.append(path.name)
        return removed

    def _download(
        self,
        image: Image,
        path: Path,
        check: Callable[[], None],
        otherwise: Callable[[Path], None] | None = None,
    ) -> None:
        partial = path.with_name(f"{path.name}{PARTIAL}")
        try:
            try:
                self._client.save(image, partial, self._max_bytes, check)
            except errors.NotFoundError:
                if otherwise is None:
                    raise
                otherwise(partial)
                verify_checksum(image, partial)
            verify_format(partial, image.disk_format)
        except BaseException as exc:
            partial.unlink(missing_ok=True)
            if isinstance(exc, errors.UnavailableError):
                raise BuildError(f"image {image.id} could not be downloaded") from exc
            if isinstance(exc, ImageError):
                raise BuildError(str(exc)) from exc.__cause__
            raise
        partial.replace(path)
        files.sync_directory(path.parent)


def verify_format(path: Path, disk_format: str) -> None:
    """Check that a file is what it was uploaded as, and refers to no other file of this host.

    :param disk_format: as Glance says it
    :raises BuildError: when it is not, or the format is not supported
    """
    wanted = _FORMATS.get(disk_format)
    if wanted is None:
        raise BuildError(f"disk format {disk_format!r} is not supported; use qcow2 or raw")
    try:
        inspector = format_inspector.detect_file_format(str(path))
        found = str(inspector)
        if wanted == "qcow2" and inspector is not None:
            inspector.safety_check()
    except (format_inspector.SafetyCheckFailed, format_inspector.ImageFormatError) as exc:
        raise BuildError(f"the image is not safe to use: {exc}") from exc
    if found != wanted and not (wanted == "raw" and found in _RAW):
        raise BuildError(f"the image was uploaded as {disk_format} but its contents are {found}")
    if wanted == "qcow2":
        info = image_info(path, "qcow2")
        data = info.get("format-specific", {}).get("data", {})
        if info.get("backing-filename") or data.get("data-file"):
            raise BuildError("the image is not safe to use: it refers to another file")


def image_info(path: Path, file_format: str) -> dict[str, Any]:
    """Return what ``qemu-img info`` says of a file of a known format.

    :raises BuildError: when it is broken
    """
    info: dict[str, Any] = json.loads(_qemu_img("info", "--output=json", "-U", "-f", file_format, str(path)))
    return info


def create_disk(disk: Path, base: Path | None, base_format: str, size_gb: int) -> None:
    """Make a server's disk, unless it is there: an overlay of an image, or an empty disk without one.

    :param base_format: Glance's disk format of the image
    :param size_gb: GiB; 0 for the image's own size
    :raises BuildError: when the image is larger than the disk
    """
    if disk.exists():
        return
    size = size_gb * GIB
    if base is not None:
        virtual_size = int(image_info(base, _FORMATS[base_format])["virtual-size"])
        if size and virtual_size > size:
            raise BuildError(f"the image needs {virtual_size} bytes of disk, the flavor has {size}")
        size = size or virtual_size
    create_like(disk, base, base_format, size)


def create_like(disk: Path, base: Path | None, base_format: str, size: int) -> None:
    """Make an empty disk of a size, an overlay of an image or by itself, unless it is there.

    :param base_format: Glance's disk format of the image
    :param size: bytes
    """
    if disk.exists():
        return
    backing = () if base is None else ("-b", str(base), "-F", _FORMATS[base_format])
    partial = disk.with_name(f"{disk.name}{PARTIAL}")
    partial.unlink(missing_ok=True)
    _qemu_img("create", "-q", "-f", "qcow2", *backing, str(partial), str(size))
    partial.replace(disk)
    files.sync_directory(disk.parent)


class Header(NamedTuple):
    """What a qcow2 file says of itself in its first bytes.

    https://www.qemu.org/docs/master/interop/qcow2.html
    """

    backing: Path | None  # the file that it stands on
    virtual_size: int  # bytes


def header(disk: Path) -> Header:
    """Return the header of a qcow2 file.

    :raises BuildError: when it is none
    """
    with disk.open("rb") as file:
        start = file.read(_HEADER.size)
        magic, _version, offset, length, _bits, size = _HEADER.unpack(start.ljust(_HEADER.size, b"\0"))
        if magic != _MAGIC:
            raise BuildError("the server's disk is not a qcow2 file")
        file.seek(offset)
        return Header(Path(os.fsdecode(file.read(length))) if offset else None, size)


def grow(disk: Path, size_gb: int) -> None:
    """Make a disk that nothing uses as large as its flavor says, if it is smaller.

    :param size_gb: GiB; 0 leaves it as it is
    """
    if header(disk).virtual_size < size_gb * GIB:
        _qemu_img("resize", "-q", "-f", "qcow2", str(disk), str(size_gb * GIB))


def rebase(disk: Path, base: Path, base_format: str) -> None:
    """Have a disk stand on another copy of the image that it stands on.

    :param base_format: Glance's disk format of the image
    """
    _qemu_img("rebase", "-q", "-u", "-f", "qcow2", "-b", str(base), "-F", _FORMATS[base_format], str(disk))


def copy(disk: Path, target: Path, check: Callable[[], None]) -> None:
    """Copy a disk that nothing writes to as it is, unless the copy is there.

    :param check: called again and again; what it raises ends the copy
    :raises BuildError: when it fails
    """
    if target.exists():
        return
    partial = target.with_name(f"{target.name}{PARTIAL}")
    said = _run(["cp", "--reflink=auto", "--sparse=always", str(disk), str(partial)], check)
    if said is not None:
        raise BuildError("the disk could not be copied") from errors.AccelschedError(said)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    files.sync_directory(target.parent)


def flatten(disk: Path, target: Path, check: Callable[[], None]) -> None:
    """Copy a disk that nothing writes to into one file that stands on no other.

    :param check: called again and again; what it raises ends the copy
    :raises SnapshotError: when it fails
    """
    try:
        said = _run(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(disk), str(target)], check)
    except FileNotFoundError as exc:
        raise SnapshotError("qemu-img is not installed on the host") from exc
    if said is not None:
        raise SnapshotError("the disk could not be copied") from errors.AccelschedError(said)


def _run(command: list[str], check: Callable[[], None]) -> str | None:
    """Run a command that may take long; return what it complains of, None when it did its work."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while True:
                try:
                    _, said = process.communicate(timeout=_LOOK_AGAIN_S)
                    break
                except subprocess.TimeoutExpired:
                    check()
        except BaseException:
            process.kill()
            raise
    return None if process.returncode == 0 else said.strip()


def _file_name(image_id: str) -> str:
    if not _IMAGE_ID.fullmatch(image_id):
        raise BuildError(f"{image_id!r} is not an image id")
    return image_id.lower()


def _qemu_img(*arguments: str) -> str:
    try:
        return subprocess.run(
            [*_QEMU_IMG, *arguments], check=True, capture_output=True, text=True, timeout=_QEMU_IMG_TIMEOUT_S
        ).stdout
    except FileNotFoundError as exc:
        raise BuildError("qemu-img is not installed on the host") from exc
    except subprocess.TimeoutExpired as exc:
        raise BuildError("qemu-img took too long") from exc
    except subprocess.CalledProcessError as exc:
        raise BuildError(f"qemu-img {arguments[0]} failed") from errors.AccelschedError(exc.stderr.strip())


def _use(path: Path) -> None:
    """Note that an image was used just now: beside it, as libvirt may have made it QEMU's."""
    _mark_of(path).touch()


def _last_use(path: Path) -> float:
    """Return when an image was used last, in seconds since the epoch."""
    mark = _mark_of(path)
    return (mark if mark.exists() else path).stat().st_mtime


def _mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_USED}")
