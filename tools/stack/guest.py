# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A guest small enough to boot in seconds even in software emulation: the distribution's kernel, busybox, one script.

It boots by its kernel directly. The kernel package is downloaded and unpacked, never installed into this system.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stack import environment, files, progress
from stack.errors import StackError

HERE = Path(__file__).resolve().parent
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0 no_timer_check tsc=reliable"
MIN_RAM_MIB = 128
DISK_MIB = 16

# By distribution: the package whose dependencies name the current kernel for virtual machines.
_KERNEL_PACKAGES = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
_NEEDED_MODULES = ("virtio_pci", "virtio_blk", "isofs", "vfat")
_OTHER_MODULES = ("nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "virtio_scsi", "sr_mod", "ahci", "ata_piix",
                  "ext4", "nvme", "8250_pci", "button", "evdev")  # fmt: skip
_RECIPE = 1


@dataclass(frozen=True)
class Guest:
    """A built guest.

    :param kernel: the kernel's file
    :param ramdisk: its initial file system, gzip
    :param disk: the root disk, qcow2
    :param version: what it was built from; the same version is the same guest
    :param kernel_release: as ``uname -r`` has it
    """

    kernel: Path
    ramdisk: Path
    disk: Path
    version: str
    kernel_release: str
    command_line: str = COMMAND_LINE
    min_ram_mib: int = MIN_RAM_MIB


def build(cache: Path | None = None, report: progress.Report = progress.say) -> Guest:
    """Return the guest, building it when this recipe of it is not in the cache.

    :raises StackError: when the kernel cannot be fetched or a tool is missing
    """
    distribution = _distribution()
    recipe = [_RECIPE, distribution, DISK_MIB, _NEEDED_MODULES, _OTHER_MODULES, (HERE / "guest_init.sh").read_text()]
    version = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    home = files.directory((cache or environment.cache_dir()) / "guest")
    target = home / version
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "release").exists():
            with progress.step("guest image", report) as step:
                step.detail = _build(distribution, home, target)
    release = (target / "release").read_text().strip()
    return Guest(target / "vmlinuz", target / "initramfs.gz", target / "root.qcow2", version, release)


def _build(distribution: str, home: Path, target: Path) -> str:
    log = home / "build.log"
    with tempfile.TemporaryDirectory(prefix="build-", dir=home) as folder, log.open("wb") as output:
        work = Path(folder)
        run = _Commands(output, log)
        release = _fetch_kernel(run, _KERNEL_PACKAGES[distribution], work)
        result = files.directory(work / "result")
        shutil.copyfile(next((work / "kernel" / "boot").glob("vmlinuz-*")), result / "vmlinuz")
        _pack_ramdisk(run, work, release, result / "initramfs.gz")
        _make_disk(run, work, result / "root.qcow2")
        (result / "release").write_text(release + "\n")
        shutil.rmtree(target, ignore_errors=True)
        result.rename(target)
    sizes = ", ".join(f"{name} {(target / name).stat().st_size >> 10} KiB" for name in ("vmlinuz", "initramfs.gz"))
    return f"kernel {release}, {sizes}"


class _Commands:
    """Runs commands with their output in the log."""

    def __init__(self, output: IO[bytes], log: Path) -> None:
        self._output = output
        self._log = log

    def __call__(self, *command: str | Path, cwd: Path | None = None) -> None:
        try:
            done = subprocess.run(
                [str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=self._output,
                stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise StackError(f"{command[0]} is missing: run tools/install-deps stack") from None
        if done.returncode != 0:
            raise StackError(f"building the guest image failed at {command[0]}", self._log)

    def lines(self, *command: str | Path) -> list[str]:
        """Return what the command prints; nothing when it fails."""
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        return done.stdout.splitlines() if done.returncode == 0 else []


def _distribution() -> str:
    if platform.machine() != "x86_64":
        raise StackError(f"the guest image is built for x86_64 only, this machine is {platform.machine()}")
    release = platform.freedesktop_os_release()
    for name in (release["ID"], *release.get("ID_LIKE", "").split()):
        if name in _KERNEL_PACKAGES:
            return name
    raise StackError(f"the guest image is built from Debian's or Ubuntu's kernel; this is {release['PRETTY_NAME']}")


def _fetch_kernel(run: _Commands, package: str, work: Path) -> str:
    """Download and unpack the kernel into ``work/kernel``; return its release."""
    names = _kernel_packages(run, package)
    if not names:
        run("apt-get", "update", "-q")
        names = _kernel_packages(run, package)
    if not names:
        raise StackError(f"no kernel to be found through the package {package}: do apt's sources have it?")
    downloads = files.directory(work / "downloads")
    try:
        run("apt-get", "download", "-q", *names, cwd=downloads)
    except StackError:  # the lists may be older than the archive
        run("apt-get", "update", "-q")
        run("apt-get", "download", "-q", *_kernel_packages(run, package), cwd=downloads)
    root = work / "kernel"
    for package_file in sorted(downloads.glob("*.deb")):
        run("dpkg-deb", "-x", package_file, root)
    if not (root / "lib" / "modules").exists():  # a distribution whose /lib is a link
        (root / "lib").symlink_to("usr/lib")
    return next((root / "lib" / "modules").iterdir()).name


def _kernel_packages(run: _Commands, package: str) -> list[str]:
    found: list[str] = []
    pending = [package]
    while pending:
        for line in run.lines("apt-cache", "depends", "--important", pending.pop()):
            name = line.partition("Depends: ")[2].strip()
            if re.fullmatch(r"linux-(image|modules)-[0-9][a-z0-9.+-]*", name) and name not in found:
                found.append(name)
                pending.append(name)
    return found


def _pack_ramdisk(run: _Commands, work: Path, release: str, target: Path) -> None:
    root = files.directory(work / "ramdisk")
    for name in ("bin", "dev", "etc/acpi", "modules", "proc", "sys"):
        files.directory(root / name)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise StackError("busybox is missing: run tools/install-deps stack")
    shutil.copy(busybox, root / "bin" / "busybox")
    for applet in run.lines(busybox, "--list"):
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(HERE / "guest_init.sh", root / "init")
    (root / "init").chmod(0o755)
    _pack_modules(run, work / "kernel", release, root / "modules")
    archive = work / "initramfs"
    listing = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    with archive.open("wb") as output:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
            input=listing.encode(),
            stdout=output,
            cwd=root,
            check=True,
        )
    target.write_bytes(gzip.compress(archive.read_bytes(), compresslevel=6, mtime=0))


def _pack_modules(run: _Commands, kernel: Path, release: str, target: Path) -> None:
    """Copy the modules and what they depend on, uncompressed; write their order of loading."""
    run("depmod", "-b", kernel, release)
    order: list[str] = []
    for module in (*_NEEDED_MODULES, *_OTHER_MODULES):
        lines = run.lines("modprobe", "-d", kernel, "-S", release, "--show-depends", module)
        if not lines and module in _NEEDED_MODULES:
            raise StackError(f"the kernel {release} has no {module}: the guest could not see its disk")
        for line in lines:  # "builtin NAME" or "insmod PATH [OPTIONS]"
            words = line.split()
            if words[0] == "insmod":
                path = Path(words[1])
                name = path.name.partition(".ko")[0] + ".ko"
                if name not in order:
                    _decompress(run, path, target / name)
                    order.append(name)
    (target / "order").write_text("".join(f"{name}\n" for name in order))


def _decompress(run: _Commands, source: Path, target: Path) -> None:
    if source.suffix == ".zst":
        run("zstd", "-q", "-d", source, "-o", target)
    elif source.suffix == ".xz":
        run("sh", "-c", 'xz -dc "$0" > "$1"', source, target)
    else:
        shutil.copyfile(source, target)


def _make_disk(run: _Commands, work: Path, target: Path) -> None:
    raw = work / "root.raw"
    with raw.open("wb") as file:
        os.truncate(file.fileno(), DISK_MIB << 20)
    run("mke2fs", "-q", "-F", "-t", "ext2", "-m", "0", "-L", "accelsched-root", raw)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target)
