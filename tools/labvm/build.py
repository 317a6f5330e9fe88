# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Make what the lab's virtual machine boots from: Debian's generic kernel, the lab's GPU driver, an initramfs.

The kernel is unpacked into the cache, never installed. It is the generic one, as Debian's cloud kernel has no
mediated devices.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from labvm import cache, labgpu
from labvm.cache import step

TOOLS = Path(__file__).parents[1]
GUEST = Path(__file__).parent / "guest"

# What the initramfs needs before it sees the root file system.
_EARLY_MODULES = ("virtio_pci", "virtiofs", "overlay", "9pnet_virtio", "9p")
_SAMPLE = "samples/vfio-mdev/mtty.c"


class BuildError(Exception):
    """The lab cannot be built here; the message says why."""


@dataclass(frozen=True)
class Artifacts:
    """What a machine boots from."""

    version: str  # of the kernel, as uname -r says it
    kernel: Path  # bzImage
    modules: Path  # folder to be mounted at /lib/modules/VERSION
    initramfs: Path
    labgpu: Path  # labgpu.ko


def build() -> Artifacts:
    """Install and make whatever is not there yet.

    :raises BuildError: on a system that the lab does not know
    """
    if platform.freedesktop_os_release().get("VERSION_CODENAME") != "bookworm" or platform.machine() != "x86_64":
        raise BuildError("the hardware lab is built from Debian 12's packages for amd64, and this is another system")
    with cache.lock("build"):
        _install_packages()
        version = _kernel_version()
        recipe = cache.digest([Path(__file__)])
        kernel = step("kernel", [version, recipe], lambda into: _kernel(version, into))
        headers = kernel / f"usr/src/linux-headers-{version}"
        driver = step(
            "labgpu",
            [kernel.name, recipe, cache.digest([Path(labgpu.__file__), *labgpu.SOURCES])],
            lambda into: _labgpu(kernel / _SAMPLE, headers, into),
        )
        initramfs = step(
            "initramfs",
            [kernel.name, recipe, cache.digest([GUEST / "early-init", Path("/bin/busybox")])],
            lambda into: _initramfs(kernel, version, into),
        )
    return Artifacts(
        version=version,
        kernel=kernel / f"boot/vmlinuz-{version}",
        modules=kernel / f"lib/modules/{version}",
        initramfs=initramfs / "initramfs.gz",
        labgpu=driver / "labgpu.ko",
    )


def _install_packages() -> None:
    """Install what is missing; that tool shows its own progress."""
    done = subprocess.run([TOOLS / "install-deps", "lab", "libvirt"], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise BuildError("the packages that the lab needs could not be installed")


def _kernel_version() -> str:
    """Return the version of the generic kernel that apt would install: 6.1.0-56-amd64."""
    listing = _run(["apt-cache", "depends", "--important", "linux-image-amd64"])
    found = re.search(r"Depends: linux-image-(\S+-amd64)$", listing, re.MULTILINE)
    if found is None:
        raise BuildError(f"apt does not say which kernel linux-image-amd64 is: {listing.strip()!r}")
    return found[1]


def _kernel(version: str, into: Path) -> None:
    """Unpack the kernel, the headers to build a module for it, and the one sample source that we use."""
    abi = version.removesuffix("-amd64")
    series = ".".join(version.split(".")[:2])
    unpacked = [
        f"linux-image-{version}",
        f"linux-headers-{version}",
        f"linux-headers-{abi}-common",
        f"linux-kbuild-{series}",
        "linux-compiler-gcc-12-x86",
    ]
    with tempfile.TemporaryDirectory(dir=into.parent) as download:
        packages = [*unpacked, f"linux-source-{series}"]
        _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *packages], cwd=Path(download))
        for package in unpacked:
            _run(["dpkg-deb", "--extract", _deb(download, package), str(into)])
        source = _deb(download, f"linux-source-{series}")
        _run(
            ["bash", "-o", "pipefail", "-c", _UNPACK_SAMPLE, "bash", source, f"linux-source-{series}", _SAMPLE],
            cwd=into,
        )
    # The headers name each other by absolute path, as if they were installed.
    makefile = into / f"usr/src/linux-headers-{version}/Makefile"
    makefile.write_text(makefile.read_text().replace("include /usr/src/", "include ../"))
    _run(["depmod", "--basedir", str(into), version])


# $1 package, $2 name of the tar file in it and of its top folder, $3 file
_UNPACK_SAMPLE = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | tar -xJ --strip-components=1 "$2/$3"'


def _deb(folder: str, package: str) -> str:
    return str(next(Path(folder).glob(f"{package}_*.deb")))


def _labgpu(sample: Path, headers: Path, into: Path) -> None:
    (into / "labgpu.c").write_text(labgpu.derive(sample.read_text()))
    for source in labgpu.SOURCES:
        shutil.copy(source, into)
    (into / "Makefile").write_text("obj-m := labgpu.o\n")
    _run(["make", "-s", "-C", str(headers), f"M={into}", "modules"])
    _run(["strip", "-g", str(into / "labgpu.ko")])


def _initramfs(kernel: Path, version: str, into: Path) -> None:
    """Pack busybox and the few modules that it takes to reach the shared root file system."""
    with tempfile.TemporaryDirectory() as tree_name:
        tree = Path(tree_name)
        for folder in ("bin", "proc", "sys", "dev", "modules", "lower", "upper", "root"):
            (tree / folder).mkdir()
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        shutil.copy(GUEST / "early-init", tree / "init")
        order = []
        for module in _EARLY_MODULES:
            shown = _run(["modprobe", "-d", str(kernel), "-S", version, "--show-depends", module])
            order += [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
        for position, path in enumerate(dict.fromkeys(order)):  # each once, dependencies first
            shutil.copy(path, tree / "modules" / f"{position:02}-{Path(path).name}")
        archive = into / "initramfs.gz"
        _run(
            [
                "bash",
                "-o",
                "pipefail",
                "-c",
                'find . | cpio -o -H newc --quiet -R 0:0 | gzip -1 > "$1"',
                "bash",
                archive,
            ],
            cwd=tree,
        )


def _run(command: list[str | Path], cwd: Path | None = None) -> str:
    """Run a command and return what it printed.

    :raises BuildError: with the end of its output when it fails
    """
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        name = " ".join(map(str, command))[:200]
        raise BuildError(f"{name}: exit status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout
