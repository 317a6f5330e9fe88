# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""An agent and its control plane in one process that can be killed at a chosen step; test_kill.py runs it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import libvirt

from accelsched import conf as options
from accelsched import rpc, wire
from accelsched.agent.devices import sysfs
from accelsched.agent.devices.fpga import sources
from accelsched.agent.devices.fpga.dfl import DflCards
from accelsched.agent.images import ImageClient
from accelsched.agent.manager import Agent
from accelsched.agent.virt.libvirt import instance, storage
from accelsched.cmd import process

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "agent"))

from fake_sysfs import FakeSysfs

# By name: the function in front of which (or, "after", behind which) the process is killed.
STEPS: dict[str, tuple[Any, str, str]] = {
    "after the mdev journal": (sysfs, "write", "before"),
    "after the mdev": (sysfs, "write", "after"),
    "after the bitstream": (sources, "fetch", "after"),
    "before the programming": (DflCards, "program", "before"),
    "after the programming": (DflCards, "program", "after"),
    "after the directory": (instance.Instance, "create", "after"),
    "before the disk": (storage, "create_disk", "before"),
    "after the disk": (storage, "create_disk", "after"),
    "after the copy": (storage, "copy", "after"),
    "after the growth": (storage, "grow", "after"),
    "before define": (libvirt.virConnect, "defineXML", "before"),
    "after define": (libvirt.virConnect, "defineXML", "after"),
    "after start": (libvirt.virDomain, "create", "after"),
    "after destroy": (libvirt.virDomain, "destroy", "after"),
    "after the save": (libvirt.virDomain, "managedSave", "after"),
    "after the backup's begin": (libvirt.virDomain, "backupBegin", "after"),
    "before the restore": (storage.ImageCache, "save", "before"),
    "after the restore": (storage.ImageCache, "save", "after"),
    "before the upload": (ImageClient, "upload", "before"),
    "after the upload": (ImageClient, "upload", "after"),
    "before the order is noted": (instance.Instance, "note_order", "before"),
    "after undefine": (libvirt.virDomain, "undefineFlags", "after"),
    "after the directory's removal": (instance.Instance, "remove", "after"),
}


class FileController:
    """A control plane whose state is two files, so that it survives the kill."""

    target = rpc.endpoint_target()

    def __init__(self, assignments: Path, observations: Path) -> None:
        self._assignments = assignments
        self._observations = observations

    def report_host(self, ctxt: object, report: wire.HostReport, control_plane: str | None) -> str:
        return "2f1d8c6a-3c3e-4f0b-9a55-0a3c5f0f8a11"

    def heartbeat(self, ctxt: object, hosts: list[str]) -> list[str]:
        return []

    def fetch_assignments(self, ctxt: object, hosts: list[str], control_plane: str | None) -> list[wire.Assignment]:
        assignments: list[wire.Assignment] = json.loads(self._assignments.read_text())
        return assignments

    def report_observations(self, ctxt: object, observations: list[wire.Observation]) -> None:
        with self._observations.open("a") as file:
            for observation in observations:
                file.write(json.dumps(observation) + "\n")


def die_at(step: str) -> None:
    owner, name, when = STEPS[step]
    original = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)


def main(state: str, assignments: str, observations: str, step: str, *overrides: str) -> int:
    """Run until a SIGTERM, or the step.

    :param state: directory
    :param assignments: JSON file that they are read from at each fetch
    :param observations: file that they are appended to as they are reported
    :param step: of :data:`STEPS`, or nothing
    :param overrides: options, GROUP.NAME=VALUE each
    :returns: exit status
    """
    conf = options.new()
    options.parse(conf, [], "killable")
    conf.set_override("state_path", state)
    conf.set_override("transport_url", "fake://")
    for override in overrides:
        option, _, value = override.partition("=")
        group, _, name = option.partition(".")
        conf.set_override(name, json.loads(value), group=group)
    if conf.devices.sysfs_root != "/sys":
        sysfs.write = FakeSysfs(Path(conf.devices.sysfs_root)).write
    if step:
        die_at(step)
    transport = rpc.transport(conf)
    server = rpc.serve(
        transport, rpc.CONTROLLER_TOPIC, "killable", FileController(Path(assignments), Path(observations))
    )
    server.start()
    agent = Agent(conf, transport)
    told = process.SignalToStop()
    agent.start()
    told.wait()
    clean = agent.stop()
    server.stop()
    server.wait()
    return 0 if clean else 1
