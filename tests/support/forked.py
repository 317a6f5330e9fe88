# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Processes of their own, forked from one that has its imports done.

Imports take one to three seconds of processor time, most of what a short process costs, and tests start hundreds.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import importlib.metadata
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import patience

_processes = multiprocessing.get_context("forkserver")
# What the services stand on. accelsched.conf chooses between the backends of one of them.
_LIBRARIES = (
    *(
        "accelsched.conf",
        "alembic.command",
        "falcon",
        "jsonschema",
        "keystonemiddleware.auth_token",
        "libvirt",
        "lxml.etree",
        "numpy",
    ),
    *("oslo_db.sqlalchemy.exc_filters", "oslo_log.log", "oslo_middleware", "oslo_policy.policy"),
    *("orjson", "os_resource_classes", "os_traits", "pymysql", "psycopg2", "requests", "sqlalchemy.orm", "stevedore"),
)
# The openstack client looks at every command there is whichever it is to run.
_entry_points = (entry for each in importlib.metadata.distributions() for entry in each.entry_points)
_commands = {entry.module for entry in _entry_points if entry.group.startswith("openstack.")}
_processes.set_forkserver_preload(["openstackclient.shell", "openstack.connection", *_LIBRARIES, *sorted(_commands)])


class Forked:
    """A function that runs in a process of its own; used as ``subprocess.Popen`` is."""

    def __init__(
        self,
        function: Callable[..., object],
        arguments: Sequence[object] = (),
        *,
        environment: Mapping[str, str],
        out: Path | None = None,
        err: Path | None = None,
        where: Path | None = None,
    ) -> None:
        """Start it.

        :param function: of a module that can be imported there; what it returns is the exit status
        :param environment: all of it
        :param out: file that its standard output is appended to; None: the tests' own
        :param err: None: as ``out``
        :param where: its working directory
        """
        for path in filter(None, (out, err)):
            path.touch(0o600)  # it can be read from now on
        self.args = [f"{function.__module__}.{function.__name__}", *arguments]
        self._process = _processes.Process(
            target=_run, args=(function, arguments, dict(environment), where, out, err or out), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        :raises subprocess.TimeoutExpired: it runs on
        """
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired([str(argument) for argument in self.args], timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it where it stands."""
        self.send_signal(signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and what it said."""

    status: int
    out: str
    err: str


def ended(name: str, *arguments: object, environment: Mapping[str, str], where: Path) -> Ended:
    """Run a command of an installed package to its end, or kill it when it comes to none.

    :param environment: all of it
    :param where: its working directory
    """
    with tempfile.TemporaryDirectory() as directory:
        out, err = (Path(directory) / stream for stream in ("out", "err"))
        process = Forked(command, (name, *arguments), environment=environment, where=where, out=out, err=err)
        try:
            process.wait(patience.LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        return Ended(process.wait(), out.read_text(), err.read_text())


def command(name: str, *arguments: object) -> int:
    """Run a command of an installed package in this process, as its script would."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    sys.argv = [name, *map(str, arguments)]
    status = entry.load()()
    return status if isinstance(status, int) else 0


def _run(
    function: Callable[..., object],
    arguments: Sequence[object],
    environment: Mapping[str, str],
    where: Path | None,
    out: Path | None,
    err: Path | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # It looks at the environment when it is imported, which openstacksdk has done.
    for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        del sys.modules[name]
    if where is not None:
        os.chdir(where)
    for number, path in ((1, out), (2, err)):
        if path is not None:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    faulthandler.enable()  # one that hangs is aborted, and says where it was
    sys.exit(function(*arguments))
