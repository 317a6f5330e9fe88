# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""bindep.txt's profiles, as tools/install-deps reads them."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

INSTALL_DEPS = Path(__file__).parents[3] / "tools" / "install-deps"


def _packages(*profiles: str) -> list[str]:
    result = subprocess.run([INSTALL_DEPS, "--list", *profiles], capture_output=True, text=True, check=True)
    return result.stdout.split()


def test_a_profile_lists_its_packages_once() -> None:
    both = _packages("libvirt", "stack")
    assert {"libvirt-daemon-system", "busybox-static", "qemu-system-x86"} <= set(both)
    assert len(both) == len(set(both))
    assert "rabbitmq-server" not in both


def test_packages_of_another_distribution_are_left_out() -> None:
    listed = "zstd" in _packages("stack")
    assert listed == (platform.freedesktop_os_release()["ID"] == "ubuntu")


def test_an_unknown_profile_is_refused() -> None:
    result = subprocess.run([INSTALL_DEPS, "--list", "nonsense"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no profile 'nonsense'" in result.stderr
