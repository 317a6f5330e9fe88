# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-agent`` as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import patience
import pytest

COMMAND = str(Path(sys.executable).with_name("accelsched-agent"))


def configuration(directory: Path, **changes: str) -> list[str]:
    options = {
        "DEFAULT.state_path": str(directory / "state"),
        # Nobody listens there.
        "DEFAULT.transport_url": "rabbit://nobody:nothing@127.0.0.1:1/",
        "agent.host": "node1",
        "agent.virt_driver": "simulated",
        "agent.device_drivers": "simulated",
        **changes,
    }
    file = directory / "agent.conf"
    sections: dict[str, list[str]] = {}
    for name, value in options.items():
        section, _, option = name.partition(".")
        sections.setdefault(section, []).append(f"{option} = {value}")
    file.write_text("\n".join("\n".join([f"[{section}]", *lines]) for section, lines in sections.items()) + "\n")
    return [COMMAND, "--config-file", str(file)]


def start(command: list[str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("agent.host", "no host name"),
        ("agent.virt_driver", "nonsense"),
        ("agent.device_drivers", "simulated,nonsense"),
        ("agent.sync_interval", "soon"),
        ("devices.pci_device_spec", "{}"),
        ("devices.simulated_gpus", "-1"),
        ("devices.mdev_class", "nvidia-1:FPGA"),
        ("DEFAULT.state_path", "/proc/nowhere"),
    ],
)
def test_a_wrong_option_is_named_in_one_line_and_the_status_is_2(tmp_path: Path, option: str, value: str) -> None:
    done = subprocess.run(
        configuration(tmp_path, **{option: value}),
        capture_output=True,
        text=True,
        timeout=patience.LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    group, _, name = option.partition(".")
    assert f"[{group}] {name}" in line


def test_help_ends_with_an_example() -> None:
    done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, timeout=patience.LIMIT_S, check=True)
    assert "--simulate N" in done.stdout
    assert done.stdout.rstrip().endswith("accelsched-agent --config-file /etc/accelsched/accelsched.conf")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_a_signal_even_when_there_is_no_message_broker(tmp_path: Path, number: signal.Signals) -> None:
    process = start(configuration(tmp_path), "--simulate", "3")
    assert process.stdout is not None
    assert any("stands for 3 hosts" in line for line in process.stdout)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=patience.LIMIT_S)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_a_second_agent_with_the_same_state_is_refused(tmp_path: Path) -> None:
    first = start(configuration(tmp_path))
    assert first.stdout is not None
    try:
        assert any("stands for host node1" in line for line in first.stdout)
        second = subprocess.run(
            configuration(tmp_path), capture_output=True, text=True, timeout=patience.LIMIT_S, check=False
        )
        assert second.returncode == 2
        assert "[DEFAULT] state_path: another agent is using" in second.stderr
    finally:
        first.kill()
        first.communicate()
