# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Processes of this package as tests run them, and HTTP to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import forked
import patience
import requests

_LOG_TAIL = 6000

Options = Mapping[str, Mapping[str, object]]


class Api(requests.Session):
    """HTTP to one deployment, paths from its root, JSON both ways; the operator unless told otherwise."""

    def __init__(self, url: str, **headers: str) -> None:
        super().__init__()
        self.url = url
        self.headers.update({"X-Auth-Token": "admin", "OpenStack-API-Version": "compute 2.96", **headers})

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request to a path of this deployment."""
        kwargs.setdefault("timeout", patience.LIMIT_S)
        return super().request(method, self.url + str(url), *args, **kwargs)

    def user(self, project: str, roles: str = "member,reader", **headers: str) -> Api:
        """Return the same deployment as somebody else sees it."""
        return Api(self.url, **{"X-Auth-Token": f"user-{project}:{project}", "X-Roles": roles, **headers})

    def at(self, version: str) -> Api:
        """Return the same as this, at another compute microversion."""
        return Api(
            self.url, **{**{k: str(v) for k, v in self.headers.items()}, "OpenStack-API-Version": f"compute {version}"}
        )


class Service:
    """A process of this package, its options in a file, its log in another."""

    def __init__(
        self,
        command: str,
        directory: Path,
        options: Options,
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / f"{command}.log"
        config = directory / f"{command}.conf"
        config.write_text(_ini(options))
        self._command = [command, "--config-file", str(config), *arguments]
        self._environment = {**os.environ, **(environment or {})}
        # Who wants the code of another tree cannot have a process that has imported this one's.
        self._of_another_tree = "PYTHONPATH" in (environment or {})
        self.process: forked.Forked | subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it, as it was started first."""
        if self._of_another_tree:
            command = [Path(sys.executable).parent / self._command[0], *self._command[1:]]
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self._environment)
        else:
            self.process = forked.Forked(forked.command, self._command, environment=self._environment, out=self.log)

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until it is ready; fail with the end of its log when it ends or takes too long."""
        deadline = time.monotonic() + patience.LIMIT_S
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.process.args} did not get ready:\n{self.log.read_text()[-_LOG_TAIL:]}")
            time.sleep(0.1)

    def stop(self) -> int:
        """Ask it to end and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience.LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.process.args} did not stop:\n{self.log.read_text()[-_LOG_TAIL:]}") from None


def _ini(options: Options) -> str:
    return "\n".join(
        line for group, values in options.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in values.items()))
    )


def answers(url: str) -> bool:
    """Tell whether a URL answers 200."""
    try:
        return requests.get(url, timeout=2).status_code == 200
    except (requests.ConnectionError, requests.Timeout):
        return False
