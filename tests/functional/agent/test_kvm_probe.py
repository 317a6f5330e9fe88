# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The KVM probe's ROM in the real QEMU."""

from __future__ import annotations

from accelsched.agent.virt import kvm


def test_the_rom_runs_to_its_end_under_software_emulation() -> None:
    probe = kvm.kvm_works(60.0, accelerator="tcg", start_timeout_s=60.0)
    assert probe, probe.reason


def test_the_probe_of_this_machine_ends_and_gives_a_reason() -> None:
    probe = kvm.kvm_works()
    assert probe.reason


def test_an_accelerator_that_qemu_refuses_is_told_in_its_words() -> None:
    probe = kvm.kvm_works(accelerator="no-such-accelerator")
    assert not probe
    assert "no-such-accelerator" in probe.reason
