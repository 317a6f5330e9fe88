# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What privileged functions refuse, whoever asks: they are all that stands between an agent's user and root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accelsched.agent.privileged import operations

MARK = "acce15ed-0000-8000-a000-000000000001"
SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
GPU = "0000:41:00.0"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: operations.create_mdev("../0000:41:00.0", "nvidia-1", MARK),
        lambda: operations.create_mdev("..", "nvidia-1", MARK),
        lambda: operations.create_mdev(GPU, "../../x", MARK),
        lambda: operations.create_mdev(GPU, ".", MARK),
        lambda: operations.create_mdev(GPU, "nvidia-1", "11111111-0000-8000-a000-000000000001"),
        lambda: operations.create_mdev(GPU, "nvidia-1", f"{MARK}\n1"),
        lambda: operations.create_mdev(GPU, "nvidia-1", 1),
        lambda: operations.define_mdev("..", "nvidia-1", MARK),
        lambda: operations.define_mdev("--jsonfile", "nvidia-1", MARK),
        lambda: operations.define_mdev(GPU, "--jsonfile", MARK),
        lambda: operations.define_mdev(GPU, "nvidia-1", "11111111-0000-8000-a000-000000000001"),
        lambda: operations.undefine_mdev("11111111-0000-8000-a000-000000000001"),
        lambda: operations.undefine_mdev("--help"),
        lambda: operations.remove_mdev("../../../x"),
        lambda: operations.remove_mdev("11111111-0000-8000-a000-000000000001"),
        lambda: operations.set_vgpu_type("0000:41:00.4/..", 1),
        lambda: operations.set_vgpu_type(f"{GPU}\n", 1),
        lambda: operations.set_vgpu_type(GPU, -1),
        lambda: operations.set_vgpu_type(GPU, "1; reboot"),
        lambda: operations.nvidia_smi("--help", GPU),
        lambda: operations.nvidia_smi("destroy", GPU, ["1"]),
        lambda: operations.nvidia_smi("destroy", GPU, []),
        lambda: operations.nvidia_smi("instances", GPU, [1]),
        lambda: operations.nvidia_smi("instances", "--format=x"),
        lambda: operations.ask_nvidia_smi("topo -m"),
        lambda: operations.clean([GPU]),  # no command is configured
        lambda: operations.program_dfl("../x", GPU),
        lambda: operations.program_dfl("node1_pci", "--help"),
        lambda: operations.program_dfl("node1_pci", GPU, "00000000-1111-4222-8333-444444444444"),
        lambda: operations.program_xilinx(".x", GPU),
        lambda: operations.examine_xilinx("host", GPU),
        lambda: operations.examine_xilinx("platform", "--batch"),
        lambda: operations.own_instance_file("..", "console.log"),
        lambda: operations.own_instance_file(SERVER, "../../node_uuid"),
        lambda: operations.own_instance_file(SERVER, "/etc/shadow"),
    ],
)
def test_what_is_no_name_address_or_number_is_refused_before_anything_is_touched(
    conf: Any, ask: Callable[[], None]
) -> None:
    with pytest.raises(ValueError, match=r"is no|mark|asked for|not set|no file"):
        ask()


def test_files_that_are_links_are_not_handed_over(context: Any, tmp_path: Path) -> None:
    directory = context.state_path / "instances" / SERVER
    directory.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    (directory / "console.log").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        operations.own_instance_file(SERVER, "console.log")
    os.link(secret, directory / "snapshot")
    with pytest.raises(ValueError, match="not a file of its own"):
        operations.own_instance_file(SERVER, "snapshot")
    os.mkfifo(directory / "nvram")
    with pytest.raises(ValueError, match="not a file of its own"):
        operations.own_instance_file(SERVER, "nvram")
    (context.state_path / "instances" / SERVER.replace("1", "2")).symlink_to(directory)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        operations.own_instance_file(SERVER.replace("1", "2"), "console.log")
    (directory / "disk").write_text("x")
    (directory / "disk").chmod(0o000)
    operations.own_instance_file(SERVER, "disk")
    assert (directory / "disk").stat().st_mode & 0o777 == 0o600


def test_a_bitstream_that_is_a_link_is_not_given_to_an_executable(context: Any, tmp_path: Path) -> None:
    directory = context.state_path / "fpgas/dfl"
    directory.mkdir(parents=True)
    (directory / "node1_pci.bitstream").symlink_to("/etc/shadow")
    with pytest.raises(ValueError, match="is a link"):
        operations.program_dfl("node1_pci", GPU)
