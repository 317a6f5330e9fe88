# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Make what the lab's virtual machine boots from: Debian's generic kernel, the lab's GPU driver, an initramfs.

The kernel is unpacked into the cache, never installed. It is the generic one, as Debian's cloud kernel has no
mediated devices.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from labvm import cache, labgpu, packages
from labvm.cache import step
from labvm.packages import STABLE, BuildError, Suite, run

TOOLS = Path(__file__).parents[1]
GUEST = Path(__file__).parent / "guest"

# What the initramfs needs before it sees the root file system.
_EARLY_MODULES = ("virtio_pci", "virtiofs", "overlay", "9pnet_virtio", "9p", "virtio_blk", "ext4")
_SAMPLE = "samples/vfio-mdev/mtty.c"
# QEMU and libvirt load whatever is in these, and stop at what is of another version: nothing below shows through.
_OWN_MODULES = ("/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib/x86_64-linux-gnu/libvirt")
# QEMU migrates a device by itself only if that, or an IOMMU of IOMMUFD's, logs what is written to memory. The lab's
# GPU writes to none, and Debian's kernel has no IOMMUFD: here somebody says that it may go all the same.
_QEMU = "usr/bin/qemu-system-x86_64"
_QEMU_MIGRATES = f"""\
#!/bin/sh
exec /{_QEMU}.debian -global vfio-pci.enable-migration=on "$@"
"""


@dataclass(frozen=True)
class Artifacts:
    """What a machine boots from."""

    version: str  # of the kernel, as uname -r says it
    kernel: Path  # bzImage
    modules: Path  # folder to be mounted at /lib/modules/VERSION
    initramfs: Path
    labgpu: Path  # labgpu.ko
    suite: str
    programs: Path | None  # image of a file system that comes on top of this machine's


def build(suite: Suite = STABLE) -> Artifacts:
    """Install and make whatever is not there yet.

    :param suite: of the kernel; and of QEMU and libvirt, where those are not to be this machine's own
    :raises BuildError: on a system that the lab does not know
    """
    if platform.freedesktop_os_release().get("VERSION_CODENAME") != "bookworm" or platform.machine() != "x86_64":
        raise BuildError("the hardware lab is built from Debian 12's packages for amd64, and this is another system")
    with cache.lock("build"):
        _install_packages()
        version = suite.kernel_version()
        recipe = cache.digest([Path(__file__), Path(packages.__file__)])
        kernel = step("kernel", [version, recipe], lambda into: _kernel(suite, version, into))
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
        programs = (
            step("programs", [suite.name, *suite.programs_available(), recipe], lambda into: _programs(suite, into))
            if suite.programs
            else None
        )
    return Artifacts(
        version=version,
        kernel=kernel / f"boot/vmlinuz-{version}",
        modules=kernel / f"lib/modules/{version}",
        initramfs=initramfs / "initramfs.gz",
        labgpu=driver / "labgpu.ko",
        suite=suite.name,
        programs=programs / "programs.img" if programs else None,
    )


def _install_packages() -> None:
    """Install what is missing; that tool shows its own progress."""
    done = subprocess.run([TOOLS / "install-deps", "lab", "libvirt"], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise BuildError("the packages that the lab needs could not be installed")


def _kernel(suite: Suite, version: str, into: Path) -> None:
    """Unpack the kernel, the headers to build a module for it, and the one sample source that we use."""
    suite.unpack_kernel(version, _SAMPLE, into)
    headers = into / f"usr/src/linux-headers-{version}"
    # The headers name each other by absolute path, as if they were installed.
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("include /usr/src/", "include ../"))
    (headers / "vmlinux").unlink(missing_ok=True)  # or type information is made of it, by a tool that is not here
    run(["depmod", "--basedir", into, version])


def _programs(suite: Suite, into: Path) -> None:
    """Make an image of the files that the machine has instead of this machine's, or more than it."""
    tree = into / "tree"
    tree.mkdir()
    suite.unpack_programs(tree)
    for unread in ("usr/share/doc", "usr/share/man", "usr/include"):
        shutil.rmtree(tree / unread, ignore_errors=True)
    (tree / _QEMU).rename(tree / f"{_QEMU}.debian")
    (tree / _QEMU).write_text(_QEMU_MIGRATES)
    (tree / _QEMU).chmod(0o755)
    size = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    image = into / "programs.img"
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree]
    run(["mke2fs", *options, image, f"{(size * 3 // 2 >> 20) + 16}M"])
    for folder in _OWN_MODULES:
        run(["debugfs", "-w", "-R", f"ea_set {folder} trusted.overlay.opaque y", image])
    shutil.rmtree(tree)


def _labgpu(sample: Path, headers: Path, into: Path) -> None:
    (into / "labgpu.c").write_text(labgpu.derive(sample.read_text()))
    for source in labgpu.SOURCES:
        shutil.copy(source, into)
    (into / "Makefile").write_text("obj-m := labgpu.o\n")
    run(["make", "-s", "-C", str(headers), f"M={into}", "modules"])
    run(["strip", "-g", str(into / "labgpu.ko")])


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
            shown = run(["modprobe", "-d", str(kernel), "-S", version, "--show-depends", module])
            order += [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
        for position, path in enumerate(dict.fromkeys(order)):  # each once, dependencies first
            target = tree / "modules" / f"{position:02}-{Path(path).name}"
            shutil.copy(path, target)
            if target.suffix == ".xz":
                run(["unxz", target])
        archive = into / "initramfs.gz"
        run(
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
