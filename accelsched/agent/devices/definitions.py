# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Definitions of mediated devices: by them mdevctl makes the devices at the host's boot, before there is an agent.

A definition is a file of mdevctl's, ``PARENT/UUID`` in its directory; it is written and removed by the command only.
Those that do not carry our mark are looked at by nobody. Where the directory or the command is not, there are none.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from oslo_log import log

from accelsched import names
from accelsched.agent.devices import base, sysfs
from accelsched.agent.privileged import operations

LOG = log.getLogger(__name__)

_RETRY_S = 300.0


class Definition(NamedTuple):
    """What mdevctl is to make."""

    parent: str
    type: str


class Definitions:
    """Those of a host that carry our mark.

    :param sysfs_root: beside which mdevctl's directory is found, as it is on a host
    """

    def __init__(self, sysfs_root: Path) -> None:
        self._directory = sysfs_root.parent / "etc/mdevctl.d"
        self._changing = threading.Lock()
        self._failed: dict[str, tuple[float, base.DeviceError]] = {}  # by mark; tried again later only

    def all(self) -> dict[str, list[Definition]]:
        """Return the definitions by mark; of one device there should be one, and can be one at each parent."""
        found: dict[str, list[Definition]] = {}
        for parent in sysfs.entries(self._directory):
            for path in filter(lambda path: names.is_own_mdev(path.name), sysfs.entries(parent)):
                found.setdefault(path.name, []).append(Definition(parent.name, _type(path)))
        return found

    def ensure(self, mark: str, wanted: Callable[[], Definition | None]) -> None:
        """Have a device be defined as it is wanted, and not otherwise. What fails is logged, and tried again later.

        :param wanted: asked while nothing else changes; None: not any more
        """
        if not self._usable():
            return
        with self._changing:
            definition = wanted()
            if definition is None or self.all().get(mark) == [definition]:
                return
            try:
                self._run(mark, lambda: self._define(mark, definition))
            except base.DeviceError as exc:
                LOG.warning("Mediated device %s is not there after a boot before the agent is: %s", mark, exc)

    def forget(self, mark: str) -> None:
        """Remove the definition of a device, if there is one.

        :raises accelsched.agent.devices.base.DeviceError: when that fails
        """
        with self._changing:
            if mark in self.all():
                self._run(mark, lambda: operations.undefine_mdev(mark))

    def repair(self, wanted: Mapping[str, Definition], look_again: Callable[[str], Definition | None]) -> None:
        """Have everything that is wanted be defined as it is. Nothing is executed where all is well.

        :param look_again: what :meth:`ensure` asks then
        """
        if not self._usable():
            return
        found = self.all()
        for mark in (mark for mark, definition in wanted.items() if found.get(mark) != [definition]):
            if not self._waits(mark):
                self.ensure(mark, lambda mark=mark: look_again(mark))  # type: ignore[misc]

    def _usable(self) -> bool:
        return os.access(self._directory, os.R_OK | os.X_OK) and shutil.which("mdevctl") is not None

    def _define(self, mark: str, definition: Definition) -> None:
        if mark in self.all():
            operations.undefine_mdev(mark)
        operations.define_mdev(definition.parent, definition.type, mark)

    def _run(self, mark: str, function: Callable[[], None]) -> None:
        if self._waits(mark):
            raise self._failed[mark][1]
        try:
            function()
        except base.DeviceError as exc:
            self._failed[mark] = (time.monotonic(), exc)
            raise
        self._failed.pop(mark, None)

    def _waits(self, mark: str) -> bool:
        """Tell whether it failed a short while ago."""
        return mark in self._failed and time.monotonic() - self._failed[mark][0] < _RETRY_S


def _type(path: Path) -> str:
    """Return the type that a definition names; nothing when it is damaged."""
    try:
        told = json.loads(path.read_bytes())
        return str(told["mdev_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
