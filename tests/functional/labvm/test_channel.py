# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The lab's command channel, with both its ends on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import labvm
import patience
import pytest
from labvm.channel import Channel, ChannelError, CommandError

TOOLS = Path(labvm.__file__).parents[1]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    token = tmp_path_factory.mktemp("channel") / "token"
    token.write_text("the token")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "labvm.command_server", "127.0.0.1", str(port), str(token)],
        env={**os.environ, "PYTHONPATH": str(TOOLS)},
    )
    try:
        patience.wait(lambda: _listens(port))
        yield Channel(port, "the token")
    finally:
        server.kill()
        server.wait()


def test_output_errors_and_exit_status_come_back(channel: Channel) -> None:
    done = channel.call(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_much_input_and_output_pass_at_the_same_time(channel: Channel) -> None:
    text = "0123456789abcdef\n" * 300_000  # 5 MB: more than every buffer between, and than one frame
    assert channel.check(["cat"], input_=text) == text


def test_input_that_a_command_does_not_read_is_no_failure(channel: Channel) -> None:
    assert channel.check(["head", "-c", "3"], input_="abc" * 1_000_000) == "abc"


def test_input_that_comes_after_a_commands_end_is_no_failure(channel: Channel) -> None:
    for _ in range(50):  # the client is still sending when the command, or the try to start it, has ended
        assert channel.call(["true"], input_="abc" * 1_000_000).returncode == 0
        assert channel.call(["/no/such/command"], input_="abc" * 1_000_000).returncode == 127


def test_input_that_nobody_reads_does_not_hold_a_command_whose_child_lives_on(channel: Channel) -> None:
    pid = int(channel.check(["sh", "-c", "sleep 3600 <&0 & echo $!"], input_="abc" * 1_000_000))
    os.kill(pid, 9)


def test_death_by_a_signal_is_128_and_its_number(channel: Channel) -> None:
    assert channel.call(["sh", "-c", "kill -9 $$"]).returncode == 137


def test_a_command_that_is_not_there_is_127(channel: Channel) -> None:
    done = channel.call(["/no/such/command"])
    assert (done.returncode, done.stderr) == (127, "/no/such/command: No such file or directory\n")


def test_a_command_that_had_to_work_raises_with_what_it_said(channel: Channel) -> None:
    with pytest.raises(CommandError, match=r"exit status 3(?s:.)*the reason"):
        channel.check(["sh", "-c", "echo the reason >&2; exit 3"])


def test_a_background_process_neither_holds_the_command_nor_dies_with_it(channel: Channel) -> None:
    pid = int(channel.check(["sh", "-c", "sleep 3600 & echo $!"]))
    os.kill(pid, 9)  # raises when it is not there


def test_a_command_that_takes_too_long_is_killed(channel: Channel, tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="longer than 1 s"):
        channel.call(["sh", "-c", f"echo $$ >{tmp_path}/pid; sleep 60"], timeout=1.0)
    pid = int((tmp_path / "pid").read_text())
    patience.wait(lambda: not Path(f"/proc/{pid}").exists(), told=lambda: "the command outlived its client")


def test_nothing_runs_without_the_token(channel: Channel, tmp_path: Path) -> None:
    with pytest.raises(ChannelError):
        Channel(channel.port, "a guess").call(["touch", str(tmp_path / "touched")])
    assert not (tmp_path / "touched").exists()


def test_a_client_that_does_not_speak_the_protocol_leaves_the_server_at_work(channel: Channel) -> None:
    with socket.create_connection(("127.0.0.1", channel.port)) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert channel.check(["echo", "still here"]) == "still here\n"
