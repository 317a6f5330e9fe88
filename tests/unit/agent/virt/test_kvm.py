# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The KVM probe believes only what ran."""

from __future__ import annotations

import stat
from pathlib import Path

from accelsched.agent.virt import kvm


def _fake_qemu(tmp_path: Path, script: str) -> str:
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_rom_is_a_64_kib_firmware_whose_parts_do_not_overlap() -> None:
    rom = kvm.probe_rom(0x11223344)
    assert len(rom) == 0x10000
    assert rom[0xFFF0:0xFFF5] == b"\xea\x00\x00\x00\xf0"
    assert rom[0x61:0x6A] == bytes.fromhex("66ea69000f000800b9"), (
        "the far jump's target is the first 64-bit instruction"
    )
    assert rom[0x69:0x6E] == b"\xb9\x44\x33\x22\x11"
    assert rom[0x7D:0x80] == b"\0\0\0", "code ends before the descriptors"


def test_a_missing_qemu_is_said() -> None:
    probe = kvm.kvm_works(qemu="no-such-qemu")
    assert not probe
    assert "no-such-qemu is not installed" in probe.reason


def test_a_qemu_that_fails_gives_its_last_words(tmp_path: Path) -> None:
    qemu = _fake_qemu(tmp_path, "echo 'first' >&2; echo 'could not open the accelerator' >&2; exit 1")
    probe = kvm.kvm_works(qemu=qemu, accelerator="tcg")
    assert not probe
    assert probe.reason == "QEMU cannot run a guest with tcg: could not open the accelerator"


def test_a_guest_that_starts_and_crawls_does_not_work(tmp_path: Path) -> None:
    qemu = _fake_qemu(tmp_path, "printf S; exec sleep 3600")
    probe = kvm.kvm_works(0.2, qemu=qemu, accelerator="tcg")
    assert not probe
    assert "does not get through" in probe.reason


def test_a_guest_that_never_starts_does_not_work(tmp_path: Path) -> None:
    qemu = _fake_qemu(tmp_path, "exec sleep 3600")
    probe = kvm.kvm_works(qemu=qemu, accelerator="tcg", start_timeout_s=0.2)
    assert not probe
    assert "did not start within 0.2 s" in probe.reason


def test_a_guest_that_finishes_in_time_works(tmp_path: Path) -> None:
    probe = kvm.kvm_works(qemu=_fake_qemu(tmp_path, "printf SE"), accelerator="tcg")
    assert probe
