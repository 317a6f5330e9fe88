# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A libvirtd that is killed and comes back, a private one with libvirt's test hypervisor."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import patience
import pytest

from accelsched import errors
from accelsched.agent.virt.libvirt.connection import Connection


class Daemon:
    """libvirtd as an unprivileged user has it: its socket and its state are below ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.uri = f"test+unix:///default?socket={home}/libvirt/libvirt-sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        variables = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
        self._process = subprocess.Popen(
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "libvirtd", "--timeout", "120"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **dict.fromkeys(variables, str(self.home))},
            stderr=subprocess.DEVNULL,
        )
        patience.wait(self._answers)

    def _answers(self) -> bool:
        try:
            libvirt.open(self.uri).close()
        except libvirt.libvirtError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    home = Path(tempfile.mkdtemp(prefix="accelsched-libvirtd-"))
    shutil.chown(home, "nobody", "nogroup")
    daemon = Daemon(home)
    daemon.start()
    yield daemon
    daemon.kill()
    shutil.rmtree(home)


def names(connection: Any) -> list[str]:
    return [domain.name() for domain in connection.listAllDomains()]


def test_a_call_after_libvirtd_was_restarted_is_made_over_a_new_connection(daemon: Daemon) -> None:
    connection = Connection(daemon.uri)
    assert connection.call(names) == ["test"]
    daemon.kill()
    daemon.start()
    assert connection.call(names) == ["test"]
    connection.close()
    assert connection.call(names) == ["test"]
    connection.close()


def test_while_libvirtd_is_away_that_is_what_the_error_says_and_afterwards_all_is_well(daemon: Daemon) -> None:
    connection = Connection(daemon.uri)
    assert connection.call(names) == ["test"]
    daemon.kill()
    for _ in range(2):
        with pytest.raises(errors.UnavailableError, match="does not answer"):
            connection.call(names)
    daemon.start()
    assert connection.call(names) == ["test"]
    connection.close()


def test_an_error_of_a_living_libvirtd_is_passed_on_and_the_call_not_repeated(daemon: Daemon) -> None:
    connection = Connection(daemon.uri)
    calls = 0

    def ask(handle: Any) -> Any:
        nonlocal calls
        calls += 1
        return handle.lookupByName("no such domain")

    with pytest.raises(libvirt.libvirtError) as caught:
        connection.call(ask)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
    assert calls == 1
    connection.close()
