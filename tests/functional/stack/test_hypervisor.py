# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a libvirtd that is started from here sees of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from stack.hypervisor import libvirtd

KVM = Path("/dev/kvm")


def test_where_kvm_does_not_run_guests_libvirtd_sees_a_device_that_none_may_open_and_others_see_their_own() -> None:
    if not KVM.exists():  # there is nothing to hide
        assert libvirtd(kvm_works=False) == libvirtd(kvm_works=True)
        return
    before = KVM.stat()
    *namespace, _libvirtd = libvirtd(kvm_works=False)
    done = subprocess.run([*namespace, "stat", "-c", "%a %F", KVM], capture_output=True, text=True, check=True)
    assert done.stdout == "0 character special file\n"
    assert KVM.stat() == before


def test_where_kvm_runs_guests_libvirtd_sees_the_machine_as_it_is() -> None:
    assert libvirtd(kvm_works=True) == ["/usr/sbin/libvirtd"]
