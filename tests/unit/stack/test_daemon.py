# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A daemon is known from its first moment to its last, and nobody else's process is ever taken for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack.daemon import Daemon
from stack.errors import StackError


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon("sleeper", tmp_path)
    yield daemon
    daemon.stop(1.0)


def test_started_daemon_is_found_by_another_object_and_stops(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.start(["sleep", "60"])
    pid = daemon.pid()
    assert pid is not None
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"sleep", b"/bin/bash"))
    other = Daemon("sleeper", tmp_path)
    assert other.pid() == pid
    assert other.stop()
    assert daemon.pid() is None


def test_starting_twice_leaves_the_first_alone(daemon: Daemon) -> None:
    daemon.start(["sleep", "60"])
    pid = daemon.pid()
    assert not daemon.start(["sleep", "60"])
    assert daemon.pid() == pid


def test_another_configuration_restarts_it(daemon: Daemon) -> None:
    daemon.start(["sleep", "60"], configuration="one")
    pid = daemon.pid()
    assert daemon.start(["sleep", "60"], configuration="two")
    assert daemon.pid() not in (None, pid)


def test_a_stale_pid_file_naming_a_living_process_of_others_is_not_believed(daemon: Daemon) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        daemon.pid_file.parent.mkdir(parents=True)
        daemon.pid_file.write_text(f"{other.pid} 0123\n")
        assert daemon.pid() is None
        assert not daemon.stop()
        assert other.poll() is None, "the other process was not signalled"
    finally:
        other.kill()
        other.wait()


def test_a_killed_daemon_is_seen_as_gone_and_started_again(daemon: Daemon) -> None:
    daemon.start(["sleep", "60"])
    pid = daemon.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while daemon.pid() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert daemon.pid() is None
    assert daemon.start(["sleep", "60"])
    assert daemon.pid() not in (None, pid)


def test_it_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import os, pathlib, sys; from stack.daemon import Daemon; "
        "Daemon('orphan', pathlib.Path(sys.argv[1])).start(['sleep', '60']); os.kill(os.getpid(), 9)"
    )
    tools = Path(__file__).parents[3] / "tools"
    subprocess.run(
        [sys.executable, "-c", starter, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(tools)}, check=False
    )
    orphan = Daemon("orphan", tmp_path)
    assert orphan.pid() is not None
    assert orphan.stop()


def test_one_that_ignores_sigterm_is_killed(daemon: Daemon) -> None:
    daemon.start(["bash", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    daemon.wait_until(lambda: "ready" in daemon.log.read_text(), 5.0)
    assert daemon.stop(timeout_s=0.3)
    assert daemon.pid() is None


def test_one_that_ends_while_starting_is_an_error_with_its_last_words(daemon: Daemon) -> None:
    daemon.start(["bash", "-c", "echo no such database; exit 3"])
    with pytest.raises(StackError, match=r"(?s)sleeper ended while it was starting.*no such database"):
        daemon.wait_until(lambda: False, 10.0)
