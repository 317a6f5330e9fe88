# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""libvirt on this machine: found running, started by systemd where there is one, else by us."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from accelsched.agent.virt import kvm
from stack import progress
from stack.daemon import Daemon
from stack.errors import StackError

URI = "qemu:///system"
START_TIMEOUT_S = 300.0
_PREFIX = "accelsched-"
# In a mount namespace of its own: over /dev/kvm lies a device that nobody but root may open. It has to have a name for
# as long as libvirtd runs, which moves that mount into the namespace of each QEMU.
_HIDE_KVM = """\
{ [ -c /run/accelsched-no-kvm ] || mknod -m 000 /run/accelsched-no-kvm c 1 3; } &&
mount --bind /run/accelsched-no-kvm /dev/kvm
exec "$@"
"""


@dataclass(frozen=True)
class Host:
    """What this machine can do for guests.

    :param virt_type: libvirt's domain type, ``kvm`` or ``qemu``
    :param virt_reason: why that
    :param mdev_parents: devices of this machine that offer mediated devices
    """

    virt_type: str
    virt_reason: str
    mdev_parents: tuple[str, ...]


def look(sysfs: Path = Path("/sys")) -> Host:
    """Find out what this machine can do, by trying where words are no proof."""
    probe = kvm.kvm_works()
    parents = sysfs / "class" / "mdev_bus"
    found = tuple(sorted(entry.name for entry in parents.iterdir())) if parents.is_dir() else ()
    return Host("kvm" if probe else "qemu", probe.reason, found)


def libvirtd(kvm_works: bool) -> list[str]:
    """Return the command that starts libvirtd, which sees no KVM where that does not run guests.

    libvirt asks QEMU what it can do and keeps the answer, except when ``/dev/kvm`` may be opened and QEMU nevertheless
    has no KVM: then it hopes for better and asks anew, a dozen times, whenever a domain is defined. On a machine whose
    ``/dev/kvm`` is only a name, each definition takes half a minute instead of a moment.
    """
    command = ["/usr/sbin/libvirtd"]
    if kvm_works or not Path("/dev/kvm").exists():
        return command
    namespace = ["unshare", "--mount", "--propagation", "slave"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        return command  # a container that may not
    return [*namespace, "sh", "-c", _HIDE_KVM, "libvirtd", *command]


class Hypervisor:
    """libvirtd, and the domains that this stack's servers run in.

    :param state_dir: the stack's directory; a domain is the stack's when its console is below it
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.virtlogd = Daemon("virtlogd", state_dir)
        self.libvirtd = Daemon("libvirtd", state_dir)

    def start(self, kvm_works: bool, report: progress.Report = progress.say) -> None:
        """Make libvirt answer, and know its QEMU: the first question about it takes seconds, on a slow machine many.

        :param kvm_works: whether KVM runs guests here; where it does not, a libvirtd of ours will not see it
        :raises StackError: when libvirt does not come up
        """
        with progress.step("libvirt", report) as step:
            step.detail = "runs already"
            if not _answers():
                step.detail = ""
                if Path("/run/systemd/system").is_dir():
                    self._start_by_systemd()
                    step.detail = "started by systemd"
                else:
                    self.virtlogd.start(["/usr/sbin/virtlogd"])
                    self.libvirtd.start(libvirtd(kvm_works))
                    self.libvirtd.wait_until(_answers, START_TIMEOUT_S)
                    step.detail = "started"
            elif self.libvirtd.pid() is not None:
                self.virtlogd.start(["/usr/sbin/virtlogd"])  # consoles need it, should it have ended
                if self.libvirtd.start(libvirtd(kvm_works)):  # guests go on while it is started anew
                    self.libvirtd.wait_until(_answers, START_TIMEOUT_S)
                    step.detail = "started anew"
        with progress.step("libvirt's look at QEMU", report):
            done = _virsh("domcapabilities", "--virttype", "qemu", timeout_s=START_TIMEOUT_S)
            if done is None or done.returncode != 0:
                words = done.stderr.strip() if done else "no answer"
                raise StackError(
                    f"libvirt cannot use QEMU: {words}", self.libvirtd.log if self.libvirtd.pid() else None
                )

    def stop(self) -> bool:
        """Stop libvirt if this stack started it and nobody else has domains; return whether it was stopped."""
        with _connection() as connection:
            if connection is not None and len(connection.listAllDomains()) > len(self._own(connection)):
                return False
        return bool(self.libvirtd.stop()) | bool(self.virtlogd.stop())

    def domains(self) -> list[str]:
        """Return the names of this stack's domains that run; none when libvirt does not."""
        with _connection() as connection:
            return [] if connection is None else [d.name() for d in self._own(connection) if d.isActive()]

    def end_domains(self) -> int:
        """End this stack's domains and forget their definitions; return how many.

        Their disks stay. An agent that finds a server's disk without a domain starts it again, so the servers are back
        with the stack's next start.
        """
        if self._has_processes() and not _answers():
            self.start(bool(kvm.kvm_works()), progress.silent)  # it ended, its guests did not
        with _connection() as connection:
            if connection is None:
                return 0
            own = self._own(connection)
            for domain in own:
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefine()
            return len(own)

    def _has_processes(self) -> bool:
        """Return whether a QEMU runs that has files of this stack."""
        mark = f"{self._state_dir}/".encode()
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = process.read_bytes()
            except OSError:  # it ended
                continue
            if b"guest=accelsched-" in command and mark in command:
                return True
        return False

    def _own(self, connection: Any) -> list[Any]:
        return [d for d in connection.listAllDomains() if d.name().startswith(_PREFIX) and self._is_ours(d.XMLDesc())]

    def _is_ours(self, xml: str) -> bool:
        consoles = etree.fromstring(xml).iterfind("devices/serial/source")
        return any(Path(console.get("path", "")).is_relative_to(self._state_dir) for console in consoles)

    def _start_by_systemd(self) -> None:
        done = subprocess.run(
            ["systemctl", "start", "virtlogd", "libvirtd"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not _answers():
            raise StackError(f"systemctl start virtlogd libvirtd: {done.stderr.strip()}; see journalctl -u libvirtd")


def reachable_by_qemu(directory: Path) -> Path | None:
    """Return the first directory on the way that QEMU's user may not pass, or None."""
    for step in (*reversed(directory.parents), directory):
        if step.is_dir() and not step.stat().st_mode & 0o001:
            return step
    return None


def _answers() -> bool:
    done = _virsh("uri", timeout_s=60.0)
    return done is not None and done.returncode == 0


def _virsh(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            ["virsh", "-q", "-c", URI, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    except FileNotFoundError:
        raise StackError("virsh is missing: run tools/install-deps libvirt") from None


@contextlib.contextmanager
def _connection() -> Iterator[Any]:
    """Give a connection to libvirt, or None when it does not run."""
    import libvirt  # noqa: PLC0415 - the rest of the stack, and `status` before anything was installed, do without

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open(URI)
    except libvirt.libvirtError:
        yield None
        return
    try:
        yield connection
    finally:
        connection.close()
