# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The lab's virtual machine: started, found again by later commands, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stack import progress

from labvm import cache
from labvm.build import GUEST, TOOLS, Artifacts
from labvm.channel import Channel, ChannelError

HOST = "labhost"
GPUS = ("0000:01:00.0", "0000:02:00.0")  # parents of mediated devices; edu cards driven by labgpu
FPGA = "0000:03:00.0"  # an edu card that no driver takes, to be handed out whole
# NVMe cards with SR-IOV: virtual functions of the first are handed out, those of the second driven by
# labgpu, as the ones of a GPU that are parents of mediated devices.
NVME = "0000:04:00.0"
SRIOV_GPU = "0000:05:00.0"
VIRTUAL_FUNCTIONS = 2
NVME_TEXT = "LAB-NVME-DATA-OK"  # what the first card's disk begins with
OUTER = "10.0.2.2"  # the outer machine's loopback, as seen inside
PEERS = ("labpeer1", "labpeer2")
"""The hosts of two machines that a network of their own joins; 10.9.0.0/24."""

# The emulated CPU `max` has AMD's SVM, so that nested guests of type kvm work inside. Without what costs emulation much
# and gives this machine nothing: `rep stosb`, by which Linux clears memory where a CPU says that it is fast, and which
# goes byte by byte here (nested guests boot in half the time without), page tables of a fifth level, guards of memory.
_CPU = "max,-erms,-la57,-pku,-smap,-smep,-umip,-mpx"
_NOT_HERE = "mitigations=off init_on_alloc=0 cryptomgr.notests nowatchdog rcupdate.rcu_expedited=1"
_COMMAND_PORT = 2222  # of the command server, inside
_MEMORY = "4G"
_STATE_DISK_BYTES = 20 << 30
_BOOT_S = 900.0


@dataclass(frozen=True)
class Place:
    """What sets a machine apart from the one that it is joined with.

    :ivar other: name of that one; a machine that it is joined with need not run
    """

    host: str
    address: str = ""  # on the network that joins them
    other: str = ""


_PLACES = {
    "peer1": Place(PEERS[0], "10.9.0.1", "peer2"),
    "peer2": Place(PEERS[1], "10.9.0.2", "peer1"),
}


class MachineError(Exception):
    """The machine does not run, or did not come up; the message says why and where its log is."""


@dataclass(frozen=True)
class Machine:
    """A running machine. Its folder holds console.log, the token, and ``shared``: /run/lab inside."""

    folder: Path
    channel: Channel

    @property
    def place(self) -> Place:
        """What host it is, and where on the network that joins it with another one."""
        return _PLACES.get(self.folder.name, Place(HOST))

    @property
    def pid(self) -> int:
        """Of QEMU."""
        return int(_state(self.folder)["pid"])

    @property
    def shared(self) -> Path:
        """Folder that both machines write to; /run/lab inside."""
        return self.folder / "shared"

    def refresh(self) -> None:
        """Make the machine see the outer machine's files as they are now; it keeps what it has once read."""
        self.channel.check(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"])

    def stop(self) -> None:
        """Switch the machine off, as by pulling its plug; nothing in it is meant to be kept."""
        self._power_off()
        shutil.rmtree(self.folder, ignore_errors=True)

    def reboot(self) -> None:
        """Switch the machine off and on again. It keeps what a host has on its disk (``guest/init`` says what that is).

        :raises MachineError: when it does not come up again
        """
        self.channel.check(["sync"])
        command = _state(self.folder)["command"]
        self._power_off()
        _power_on(self, command)

    def _power_off(self) -> None:
        pid = self.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if not _is_ours(pid, self.folder):
                    break
                time.sleep(0.1)
            else:
                os.kill(pid, signal.SIGKILL)


def running(name: str = "machine") -> Machine | None:
    """Return the machine of a name that runs, if one does; without a name, the one that is left running for all."""
    folder = cache.root() / name
    try:
        machine = Machine(folder, Channel(**_state(folder)["channel"]))
        return machine if _is_ours(machine.pid, folder) else None
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None


def start(artifacts: Artifacts) -> Machine:
    """Start the machine that is left running for all, and wait until it takes commands; return it if it runs already.

    :raises MachineError: when it did not come up
    """
    with cache.lock("machine"):
        if machine := running():
            machine.refresh()
            return machine
        return _boot(artifacts, "machine")


@contextlib.contextmanager
def throwaway(artifacts: Artifacts, name: str) -> Iterator[Machine]:
    """Start a machine of its own for as long as the block lasts; others that want one of this name wait for it.

    One that a killed process left running is stopped first.

    :raises MachineError: when it did not come up
    """
    with cache.lock(name):
        if left := running(name):
            left.stop()
        machine = _boot(artifacts, name)
        try:
            yield machine
        finally:
            machine.stop()


def panicked(since: float) -> str | None:
    """Return the name of a machine whose kernel has stopped; None when there is none.

    :param since: seconds since 1970
    """
    for console in sorted(cache.root().glob("*/console.log")):
        if console.stat().st_mtime > since and b"Kernel panic" in console.read_bytes():
            return console.parent.name
    return None


def _boot(artifacts: Artifacts, name: str) -> Machine:
    with progress.step("boot", cache.report):
        return _started(artifacts, cache.root() / name)


def _started(artifacts: Artifacts, folder: Path) -> Machine:
    shutil.rmtree(folder, ignore_errors=True)
    shared = folder / "shared"
    shared.mkdir(parents=True)
    folder.chmod(0o700)
    token = secrets.token_hex(32)
    (shared / "token").write_text(token)
    capabilities = cache.root() / f"capabilities-{artifacts.suite}"
    capabilities.mkdir(exist_ok=True)
    place = _PLACES.get(folder.name, Place(HOST))
    settings = {
        "LAB_HOST": place.host,
        "LAB_ADDRESS": place.address,
        "LAB_MODULES": artifacts.modules,
        "LAB_LABGPU": artifacts.labgpu,
        "LAB_GPUS": " ".join(GPUS),
        "LAB_NVME": NVME,
        "LAB_SRIOV_GPU": SRIOV_GPU,
        "LAB_VIRTUAL_FUNCTIONS": VIRTUAL_FUNCTIONS,
        "LAB_TOOLS": TOOLS,
        "LAB_PORT": _COMMAND_PORT,
        "LAB_CAPABILITIES": capabilities,
    }
    (shared / "settings").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
    disk = folder / "state.img"
    with disk.open("wb") as file:
        file.truncate(_STATE_DISK_BYTES)  # sparse
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", str(disk)], check=True)

    (folder / "nvme.img").write_bytes(NVME_TEXT.encode().ljust(1 << 20, b"\0"))

    port = _free_port()
    machine = Machine(folder, Channel(port, token))
    _power_on(machine, qemu_command(artifacts, folder, port))
    with contextlib.suppress(OSError):
        for found in (shared / "capabilities").iterdir():
            shutil.copy2(found, capabilities)
    return machine


def _state(folder: Path) -> dict[str, Any]:
    """Return what is known of the machine whose folder that is: QEMU's pid and command, the way to its commands."""
    state: dict[str, Any] = json.loads((folder / "machine.json").read_text())
    return state


def _power_on(machine: Machine, command: list[str]) -> None:
    """Start QEMU, and wait until the machine takes commands."""
    _start_virtiofsd(machine.folder)
    with (machine.folder / "qemu.log").open("ab") as log:
        qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    state = {"pid": qemu.pid, "command": command, "channel": asdict(machine.channel)}
    (machine.folder / "machine.json").write_text(json.dumps(state))
    try:
        _wait_until_ready(machine, qemu)
    except BaseException:
        qemu.kill()
        qemu.wait()
        raise


def qemu_command(artifacts: Artifacts, folder: Path, port: int) -> list[str]:
    """Return the command that is the machine.

    :param port: on 127.0.0.1, led to the command server inside
    """
    programs = f"file={artifacts.programs},if=none,id=programs,format=raw,readonly=on"
    command = [
        "qemu-system-x86_64",
        # Software emulation on purpose: KVM in cloud machines opens and then crawls.
        *("-accel", "tcg,thread=multi,tb-size=1024", "-machine", "q35", "-cpu", _CPU),
        # With two processors, kernels were seen to stop: over code that one changed and the other ran, and after a
        # guest's exit over what the emulation had kept of the guest.
        *("-smp", "1"),
        *("-m", _MEMORY),
        *("-nodefaults", "-nographic", "-no-reboot", "-serial", "chardev:console"),
        *("-chardev", f"file,id=console,path={folder}/console.log,append=on"),
        *("-kernel", str(artifacts.kernel), "-initrd", str(artifacts.initramfs)),
        "-append",
        f"console=ttyS0 quiet panic=-1 {_NOT_HERE} apparmor=0 intel_iommu=on lab.init={GUEST / 'init'}"
        + (" lab.programs=/dev/vdb" if artifacts.programs else ""),
        # virtiofs works on shared memory
        *("-object", f"memory-backend-memfd,id=memory,size={_MEMORY},share=on", "-numa", "node,memdev=memory"),
        *("-chardev", f"socket,id=rootfs,path={folder}/rootfs.sock"),
        *("-device", "vhost-user-fs-pci,chardev=rootfs,tag=root,queue-size=1024"),
        *("-fsdev", f"local,id=shared,path={folder}/shared,security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=shared,mount_tag=shared"),
        *("-drive", f"file={folder}/state.img,if=none,id=state,format=raw,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=state,serial=state"),
        *(
            ("-drive", programs, "-device", "virtio-blk-pci,drive=programs,serial=programs")
            if artifacts.programs
            else ()
        ),
        # Inside, 10.0.2.2 is this machine's loopback.
        *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{_COMMAND_PORT}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        # VFIO needs DMA and interrupt remapping.
        *("-device", "intel-iommu,intremap=on"),
    ]
    # Each card behind a root port of its own, so that it is alone in its IOMMU group.
    for bus in range(1, len((*GPUS, FPGA)) + 1):
        command += [*_root_port(bus), "-device", f"edu,bus=port{bus}"]
    for address in (NVME, SRIOV_GPU):
        bus = int(address[5:7], 16)
        sriov = f"sriov_max_vfs={VIRTUAL_FUNCTIONS},sriov_vq_flexible=4,sriov_vi_flexible=2"
        command += [
            *_root_port(bus),
            *("-device", f"nvme-subsys,id=subsystem{bus},nqn=lab{bus}"),
            *("-device", f"nvme,id=nvme{bus},serial=LAB{bus},subsys=subsystem{bus},bus=port{bus},{sriov}"),
        ]
    namespace = f"nvme-ns,drive=namespace,bus=nvme{int(NVME[5:7], 16)}"
    disk = f"file={folder}/nvme.img,if=none,id=namespace,format=raw,cache=unsafe"
    return [*command, "-drive", disk, "-device", namespace, *_link(folder)]


def _root_port(bus: int) -> list[str]:
    return ["-device", f"pcie-root-port,id=port{bus},chassis={bus},slot={bus}"]


def _link(folder: Path) -> list[str]:
    """Return the network card that joins two machines: what one sends goes to the other's socket, if that is there."""
    place = _PLACES.get(folder.name)
    if place is None:
        return []
    ours, theirs = folder / "link.sock", folder.parent / place.other / "link.sock"
    sockets = f"local.type=unix,local.path={ours},remote.type=unix,remote.path={theirs}"
    card = f"virtio-net-pci,netdev=link,romfile=,mac=52:54:00:09:00:{int(place.address.rpartition('.')[2]):02x}"
    return ["-netdev", f"dgram,id=link,{sockets}", "-device", card]


def _start_virtiofsd(folder: Path) -> None:
    """Serve this machine's root file system; the process ends when QEMU does."""
    socket_path = folder / "rootfs.sock"
    socket_path.unlink(missing_ok=True)
    with (folder / "virtiofsd.log").open("wb") as log:
        server = subprocess.Popen(
            [
                "/usr/lib/qemu/virtiofsd",
                f"--socket-path={socket_path}",
                *("-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 10
    while not socket_path.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise MachineError(f"virtiofsd did not start: {(folder / 'virtiofsd.log').read_text()[-2000:]}")
        time.sleep(0.05)


def _wait_until_ready(machine: Machine, qemu: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _BOOT_S
    while True:
        try:
            machine.channel.call(["true"], timeout=10)
        except ChannelError as exc:
            if qemu.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            console = machine.folder / "console.log"
            tail = "\n".join(
                path.read_text(errors="replace")[-2000:]
                for path in (console, machine.folder / "qemu.log")
                if path.exists()
            )
            raise MachineError(f"the machine did not come up ({exc}); the end of {console}:\n{tail}") from exc
        return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _is_ours(pid: int, folder: Path) -> bool:
    """Tell whether the process is the QEMU of this folder, not another that has its number now."""
    try:
        return os.fsencode(f"{folder}/console.log") in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
