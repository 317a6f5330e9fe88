# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The machine's libvirtd, which knows its QEMU."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
from stack import progress
from stack.hypervisor import URI, Hypervisor

from accelsched.agent.virt import kvm


@contextlib.contextmanager
def connected(state: Path) -> Iterator[Any]:
    """Connect to it; it is started, and left running, when it does not run.

    :param state: where what starting it needs is kept
    """
    with (Path(tempfile.gettempdir()) / "accelsched-tests-libvirt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests may be about to do the same
        Hypervisor(state).start(bool(kvm.kvm_works()), progress.silent)
    connection = libvirt.open(URI)
    try:
        yield connection
    finally:
        connection.close()
