# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Agents forked from a process that has their libraries loaded, which takes 15 s in the lab's machine.

After a reboot of the machine there is no such process, nor on the two hosts of the moves: those agents are started by
their command, as an init system would.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from labvm.build import TOOLS
from labvm.machine import Machine

_FOLDER = Path("/run/warm")  # inside, gone with a reboot
_ASKED, _STARTED = _FOLDER / "asked", _FOLDER / "started"


def load(machine: Machine) -> None:
    """Have the libraries loaded in a machine; whoever asks before they are is answered when they are."""
    command = shlex.join(["env", f"PYTHONPATH={TOOLS}", "EVENTLET_NO_GREENDNS=yes", sys.executable, "-m", __name__])
    folder = f"mkdir -m 700 {_FOLDER}; mkfifo {_ASKED} {_STARTED}"
    machine.channel.check(["sh", "-c", f"{folder}; setsid {command} </dev/null >/run/lab/warm.log 2>&1 &"])


def start(machine: Machine, environment: Mapping[str, str], arguments: Sequence[str], log: Path) -> int | None:
    """Start an agent and return its process id; None when the machine has no libraries loaded.

    :param arguments: of ``accelsched-agent``
    :param log: what it says goes there, inside
    """
    asked = json.dumps({"environment": dict(environment), "arguments": list(arguments), "log": str(log)})
    script = f"[ -p {_ASKED} ] && cat >{_ASKED} && cat {_STARTED}"
    answer = machine.channel.call(["sh", "-c", script], input_=asked)
    return int(answer.stdout) if answer.returncode == 0 else None


def _serve() -> None:
    agent = importlib.import_module("accelsched.cmd.agent")
    for late in ("kombu.transport.pyamqp", "lxml.etree", "oslo_messaging._drivers.impl_rabbit"):
        importlib.import_module(late)
    extension = importlib.import_module("stevedore.extension")
    for drivers in ("accelsched.agent.virt", "accelsched.agent.devices", "oslo.messaging.drivers"):
        extension.ExtensionManager(drivers)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # they are nobody's to wait for
    while True:
        asked = json.loads(_ASKED.read_text())
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.environ |= asked["environment"]
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.exit(agent.main(asked["arguments"]))
        _STARTED.write_text(f"{pid}\n")


if __name__ == "__main__":
    _serve()
