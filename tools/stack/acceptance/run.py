# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""One run: its commands, how each went, and what can be asked of the stack to judge it."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import openstack

from stack import progress
from stack.acceptance.domains import Domains
from stack.client import OpenStackClient
from stack.errors import StackError

# How the service says that it has not got to something yet.
_NOT_YET = ("is not supported by this release", "The method is not allowed for this resource")
_PATIENCE_S = 420.0
_LOOK_AGAIN_S = 1.0

_Result = TypeVar("_Result")


class StoryEndedError(Exception):
    """What a story cannot do without did not work; that is counted already."""


class Run:
    """What was tried, and how it went.

    :param state_dir: the stack's directory
    :param report: where lines go
    """

    def __init__(self, state_dir: Path, report: progress.Report = progress.say) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.unsupported: list[str] = []
        self._instances = state_dir / "accelsched" / "instances"
        self.directory = Path(tempfile.mkdtemp(prefix="accelsched-acceptance-"))
        clouds = state_dir / "clouds.yaml"
        self._clients = {
            cloud: OpenStackClient(clouds, cloud, progress.silent) for cloud in ("accelsched", "accelsched-demo")
        }
        self._report = report
        self._clouds = clouds

    @cached_property
    def domains(self) -> Domains:
        """The domains of the stack's servers."""
        return Domains(self._instances)

    @contextmanager
    def command(self, name: str, *, vital: bool = False) -> Iterator[None]:
        """Judge the block as one command: it passes when nothing is raised.

        :param name: the command as the client has it, with the options that make a difference
        :param vital: without it the story makes no sense
        :raises StoryEndedError: when what is vital fails
        """
        began = time.monotonic()
        try:
            yield
        except Exception as exc:  # whatever it is, the command did not do what it should
            if any(words in str(exc) for words in _NOT_YET):
                self.unsupported.append(name)
                self._report(f"--  {name}: not supported yet")
                return
            self.failed.append(name)
            where = traceback.extract_tb(exc.__traceback__)[-1]
            why = str(exc) or f"{where.line} ({Path(where.filename).name}:{where.lineno})"
            self._report(f"FAILED {name}: {why}")
            if vital:
                raise StoryEndedError from exc
        else:
            self.passed.append(name)
            self._report(f"ok  {name} ({time.monotonic() - began:.1f} s)")

    def client(self, *arguments: str, user: bool = False) -> str:
        """Return what the client prints.

        :param user: as an ordinary user; else as the operator
        :raises StackError: when it fails
        """
        return self._clients["accelsched-demo" if user else "accelsched"].run(*arguments, timeout_s=_PATIENCE_S)

    def json(self, *arguments: str, user: bool = False) -> Any:
        """Return what the client says as JSON.

        :raises StackError: when it fails
        """
        return json.loads(self.client(*arguments, "-f", "json", user=user))

    def sdk(self, *, user: bool = False) -> openstack.connection.Connection:
        """Return openstacksdk's connection.

        :param user: of an ordinary user; else of the operator
        """
        config = openstack.config.OpenStackConfig(config_files=[str(self._clouds)])
        cloud = config.get_one("accelsched-demo" if user else "accelsched")
        return openstack.connection.Connection(config=cloud)

    def refused(self, *arguments: str, why: str, user: bool = False) -> None:
        """Have a command that must fail.

        :param why: part of what it must say
        """
        try:
            self.client(*arguments, user=user)
        except StackError as exc:
            assert why in str(exc), exc
        else:
            raise AssertionError(f"it was not refused: openstack {' '.join(arguments)}")

    def until(self, look: Callable[[], _Result], what: str) -> _Result:
        """Wait until something holds; return it.

        :param what: is waited for, for the error
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {_PATIENCE_S:g} s: {what}")
            time.sleep(_LOOK_AGAIN_S)
        return found
