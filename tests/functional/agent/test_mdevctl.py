# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Definitions of mediated devices by the real mdevctl, in a mount namespace with a directory of its own for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
GPU = "0000:41:00.0"
STRANGER = "0000:42:00.0/11111111-2222-4333-8444-555555555555"


@pytest.fixture
def configuration(tmp_path: Path, sysfs: Any) -> Path:
    path = sysfs.add_function(GPU, "10de", "25b6", group=7)
    sysfs.add_mdev_parent(path, {"nvidia-2": 4})
    (path / "mdev_supported_types/nvidia-2/create").write_text("")
    for scripts in ("callouts", "notifiers"):
        (tmp_path / "etc/mdevctl.d/scripts.d" / scripts).mkdir(parents=True)
    (tmp_path / "state").mkdir()
    file = tmp_path / "accelsched.conf"
    file.write_text(f"[DEFAULT]\nstate_path = {tmp_path}/state\n[devices]\nsysfs_root = {sysfs.root}\n")
    return file


def test_what_the_command_has_on_file_follows_what_the_agent_makes(configuration: Path) -> None:
    mount = 'mount --bind "$1/etc/mdevctl.d" /etc/mdevctl.d && shift && exec "$@"'
    process = [sys.executable, str(HERE / "defining.py"), str(configuration)]
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", str(configuration.parent), *process]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    definition = {"mdev_type": "nvidia-2", "start": "auto", "attrs": []}
    stranger = {"mdev_type": "x", "start": "auto", "attrs": []}
    assert told["made"] == {f"{GPU}/{told['uuid']}": definition}
    assert told["repaired"] == {f"{GPU}/{told['uuid']}": definition, STRANGER: stranger}
    assert told["released"] == {STRANGER: stranger}
