# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Does KVM run guests here, rather than merely open?

On some virtual machines ``/dev/kvm`` opens, a guest can be created and libvirt reports the type ``kvm``, yet every
guest instruction goes through KVM's instruction emulator: a kernel does not fail to boot, it crawls. The only honest
answer comes from running something. Here that is a 64 KiB ROM of our own: from the reset vector it says on QEMU's
debug console that it started, enters long mode, where a guest's kernel lives, counts down, and says that it finished.
The time between is what is judged (an emulator may get stuck even in entering long mode); QEMU's own start, slow on a
busy or an emulated machine, is not.
"""

from __future__ import annotations

import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LOOP_COUNT = 50_000_000
"""Iterations of a two-instruction loop: about 0.02 s on hardware, 0.2 s in TCG, a minute in KVM's emulator."""

LOOP_TIMEOUT_S = 3.0
START_TIMEOUT_S = 30.0

_ROM_BYTES = 0x10000
_ROM_BASE = 0xF0000
_STARTED, _FINISHED = b"S", b"E"


@dataclass(frozen=True)
class KvmProbe:
    """Whether KVM runs guests, and how we know; true when it does.

    :param works: a guest ran at hardware's speed
    :param reason: one sentence for a log or an operator
    """

    works: bool
    reason: str

    def __bool__(self) -> bool:
        return self.works


def probe_rom(loop_count: int = LOOP_COUNT) -> bytes:
    """Return a PC firmware image that says it starts, counts ``loop_count`` down in long mode, says it ends.

    The machine's start-up state, page table and descriptor formats: Intel SDM volume 3, "Processor Management and
    Initialization" and "Paging".
    """
    code = bytes.fromhex(
        # 16 bits, at F000:0000
        "b053 e6e9"  # 'S' to the debug console
        "fa"  # cli
        "6631c0 8ed8 8ec0 fc"  # eax = 0; ds = es = 0; cld
        "bf0010 b90018 f3ab"  # zero 0x1000-0x3fff: three page tables
        "66c706 0010 03200000"  # PML4[0] -> 0x2000, present, writable
        "66c706 0020 03300000"  # PDPT[0] -> 0x3000
        "66c706 0030 83000000"  # PD[0]   -> a 2 MiB page at 0: RAM and this ROM's copy below 1 MiB
        "66b800100000 0f22d8"  # cr3 = 0x1000
        "0f20e0 0c20 0f22e0"  # cr4 |= PAE
        "66b9800000c0 0f32 80cc01 0f30"  # EFER |= LME
        "2e660f01169000"  # lgdt cs:[0x90]
        "0f20c0 660d01000080 0f22c0"  # cr0 |= PG | PE
        "66ea 69000f00 0800"  # jmp 0x08:0xf0069
        # 64 bits, at 0xf0069
        f"b9 {struct.pack('<I', loop_count).hex()}"  # ecx = loop_count
        "ffc9 75fc"  # dec ecx; jnz
        "b045 e6e9"  # 'E'
        "b010 e6f4"  # isa-debug-exit
        "f4 ebfd"  # hlt, for ever
    )
    descriptors = struct.pack("<QQ", 0, 0x00209A0000000000)  # null; 64-bit code
    table = struct.pack("<HI", len(descriptors) - 1, _ROM_BASE + 0x80)
    rom = bytearray(_ROM_BYTES)
    rom[: len(code)] = code
    rom[0x80:0x90] = descriptors
    rom[0x90:0x96] = table
    rom[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")  # the reset vector: jmp F000:0000
    return bytes(rom)


def kvm_works(
    timeout_s: float = LOOP_TIMEOUT_S,
    *,
    accelerator: str = "kvm",
    qemu: str = "qemu-system-x86_64",
    start_timeout_s: float = START_TIMEOUT_S,
) -> KvmProbe:
    """Run the probe's ROM in QEMU and judge its speed.

    :param timeout_s: seconds that the guest may take from its first instruction to the loop's end
    :param accelerator: QEMU's ``-accel``: ``kvm``; tests give ``tcg`` to see that the ROM itself is sound
    :param qemu: name or path of QEMU
    :param start_timeout_s: seconds until the guest must have begun
    """
    binary = shutil.which(qemu)
    if binary is None:
        return KvmProbe(False, f"{qemu} is not installed")
    if accelerator == "kvm":
        if not Path("/dev/kvm").exists():
            return KvmProbe(False, "there is no /dev/kvm")
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return KvmProbe(False, "/dev/kvm may not be opened by this user")
    with tempfile.TemporaryDirectory(prefix="accelsched-kvm-") as folder:
        rom = Path(folder, "rom.bin")
        rom.write_bytes(probe_rom())
        stderr = Path(folder, "stderr")
        command = [
            binary,
            *("-accel", accelerator, "-machine", "q35", "-cpu", "qemu64", "-m", "16"),
            *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-bios", str(rom)),
            *("-chardev", "stdio,id=out,signal=off", "-device", "isa-debugcon,iobase=0xe9,chardev=out"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ]
        with stderr.open("wb") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        try:
            return _judge(process, accelerator, timeout_s, start_timeout_s, stderr)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _judge(
    process: subprocess.Popen[bytes], accelerator: str, timeout_s: float, start_timeout_s: float, stderr: Path
) -> KvmProbe:
    if not _said(process, _STARTED, start_timeout_s):
        try:
            process.wait(timeout=1)  # it closed its output: it is ending
        except subprocess.TimeoutExpired:
            return KvmProbe(False, f"a guest with {accelerator} did not start within {start_timeout_s:g} s")
        lines = stderr.read_text(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        return KvmProbe(False, f"QEMU cannot run a guest with {accelerator}: {lines[-1][:200]}")
    started = time.monotonic()
    if not _said(process, _FINISHED, timeout_s):
        return KvmProbe(
            False, f"{accelerator} starts a guest but does not get through {LOOP_COUNT} loops in {timeout_s:g} s"
        )
    elapsed = time.monotonic() - started
    return KvmProbe(True, f"{accelerator} ran {LOOP_COUNT} loops of a guest in {elapsed:.2f} s")


def _said(process: subprocess.Popen[bytes], mark: bytes, timeout_s: float) -> bool:
    """Return whether the guest's next byte is ``mark`` and comes in time."""
    if process.stdout is None:
        return False
    descriptor = process.stdout.fileno()
    ready, _, _ = select.select([descriptor], [], [], timeout_s)
    return bool(ready) and os.read(descriptor, 1) == mark
