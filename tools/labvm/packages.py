# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Debian's packages for the lab: downloaded and unpacked, never installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labvm import cache

_ARCHIVE = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian"
_LISTS_S = 24 * 3600.0  # after which it is asked again what there is


class BuildError(Exception):
    """The lab cannot be built here; the message says why."""


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
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


@dataclass(frozen=True)
class Suite:
    """Where a machine's kernel, QEMU and libvirt come from.

    :ivar programs: packages that the machine has instead of those of this machine
    """

    name: str
    programs: Sequence[str] = ()

    def kernel_version(self) -> str:
        """Return the version of the generic kernel that apt would install: 6.1.0-56-amd64."""
        listing = run(["apt-cache", *self._options(), "depends", "--important", "linux-image-amd64"])
        found = re.search(r"Depends: linux-image-(\S+-amd64)$", listing, re.MULTILINE)
        if found is None:
            raise BuildError(f"apt does not say which kernel linux-image-amd64 is: {listing.strip()!r}")
        return found[1]

    def unpack_kernel(self, version: str, sample: str, into: Path) -> None:
        """Unpack a kernel, the headers to build a module for it, and one file of its source.

        :param version: as :meth:`kernel_version` returns it
        :param sample: path within the source
        """
        listing = run(["apt-cache", *self._options(), "depends", "--important", f"linux-headers-{version}"])
        tools = re.findall(r"Depends: (linux-(?:headers|kbuild|compiler)-\S+)$", listing, re.MULTILINE)
        unpacked = [f"linux-image-{version}", f"linux-headers-{version}", *tools]
        source = f"linux-source-{'.'.join(version.split('.')[:2])}"
        download = into / "download"
        download.mkdir()
        run(["apt-get", *self._options(), "download", "-qq", *unpacked, source], cwd=download)
        for package in unpacked:
            run(["dpkg-deb", "--extract", _deb(download, package), into])
        run(["bash", "-o", "pipefail", "-c", _UNPACK, "bash", _deb(download, source), source, sample], cwd=into)
        shutil.rmtree(download)

    def programs_available(self) -> Sequence[str]:
        """Return the programs with the versions that apt would take."""
        listing = run(["apt-cache", *self._options(), "policy", *self.programs])
        return re.findall(r"^  Candidate: (\S+)$", listing, re.MULTILINE)

    def unpack_programs(self, into: Path) -> None:
        """Unpack the programs. What else they need this machine has, for its own versions need it too."""
        archives = into / "archives"
        archives.mkdir()
        run(["apt-get", *self._options(), "download", "-qq", *self.programs], cwd=archives)
        for package in sorted(archives.glob("*.deb")):
            run(["dpkg-deb", "--extract", package, into])
        shutil.rmtree(archives)
        # As on the machine that they come on top of, where /lib and the others are links.
        for name in ("bin", "sbin", "lib", "lib64"):
            if (into / name).is_dir():
                (into / "usr").mkdir(exist_ok=True)
                run(["cp", "-a", f"{name}/.", f"usr/{name}"], cwd=into)
                shutil.rmtree(into / name)

    def _options(self) -> list[str]:
        """Return apt's options: none where the machine's own sources have the suite."""
        as_root = ["-o", "APT::Sandbox::User=root"]
        if not self.programs:
            return as_root
        apt = cache.root() / f"apt-{self.name}"
        (apt / "lists/partial").mkdir(parents=True, exist_ok=True)
        sources = apt / "sources.list"
        own = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": apt / "lists",
            "Dir::Cache": apt,
            "APT::Default-Release": self.name,
        }
        options = as_root + [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        if not sources.exists() or time.time() - sources.stat().st_mtime > _LISTS_S:
            release = self.name.partition("-")[0]
            suites = (release, f"{release}-updates", self.name)
            written = apt / "sources.new"
            written.write_text("".join(f"deb {_ARCHIVE} {suite} main\n" for suite in suites))
            run(["apt-get", *options, "-o", f"Dir::Etc::sourcelist={written}", "-qq", "update"])
            written.rename(sources)
        return options


_LIBVIRT = (
    *("libvirt0", "libvirt-common", "libvirt-clients", "libvirt-daemon", "libvirt-daemon-common", "libvirt-daemon-log"),
    *(f"libvirt-daemon-driver-{what}" for what in ("network", "nodedev", "nwfilter", "qemu", "secret", "storage")),
)
_QEMU = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "seabios")

STABLE = Suite("bookworm")
BACKPORTS = Suite("bookworm-backports", (*_QEMU, *_LIBVIRT))

# $1 package, $2 name of the tar file in it and of its top folder, $3 file
_UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | tar -xJ --strip-components=1 "$2/$3"'


def _deb(folder: Path, package: str) -> Path:
    return next(folder.glob(f"{package}_*.deb"))
