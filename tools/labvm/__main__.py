# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``tools/lab``."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from labvm import build, machine, packages
from labvm.channel import ChannelError

_ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    """Carry out one command and return its exit status."""
    match argv:
        case [] | ["help" | "--help" | "-h", *_]:
            print(_USAGE, end="")
            return 0 if argv else 2
        case ["build" | "up" | "down" | "shell" as name]:
            command = {"build": _build, "up": _up, "down": _down, "shell": _shell}[name]
        case ["test", *arguments]:
            command = functools.partial(_test, arguments)
        case ["run", _, *_]:
            command = functools.partial(_in_machine, argv[1:])
        case _:
            print(f"lab: what is {' '.join(argv)!r}?\n\n{_USAGE}", end="", file=sys.stderr)
            return 2
    # So that a machine that was started for this command does not outlive it.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return command()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (packages.BuildError, machine.MachineError, ChannelError) as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1


_USAGE = """\
The hardware lab: a virtual machine with GPUs that make mediated devices, and an FPGA (doc/source/contributor/lab.rst).

tools/lab build              install and make what the machine boots from
tools/lab test [ARG...]      run tests/lab (arguments go to pytest); last line: N passed, M failed
tools/lab run CMD [ARG...]   run a command in the machine and pass its exit status on
tools/lab shell              a root shell in the machine
tools/lab up                 start a machine and leave it running, for run and shell
tools/lab down               stop it
"""


def _build() -> int:
    build.build()
    return 0


def _up() -> int:
    running = machine.start(build.build())
    print(f"lab: the machine runs; its console is {running.folder}/console.log", file=sys.stderr)
    return 0


def _down() -> int:
    if running := machine.running():
        running.stop()
    return 0


def _shell() -> int:
    return _in_machine(["bash", "-i"])


def _in_machine(command: list[str]) -> int:
    """Run a command in the machine that was left running; without one, in one for this command alone."""
    artifacts = build.build()
    if machine.running() is not None:
        return machine.start(artifacts).channel.attach(command)
    with machine.throwaway(artifacts, "run") as fresh:
        return fresh.channel.attach(command)


def _test(arguments: list[str]) -> int:
    """Run the tests; the last line says how many passed and failed, errors in fixtures being failures."""
    build.build()
    begun = time.time()
    status, results = _pytest(["tests/lab", *arguments])
    files = sorted({name.partition("::")[0] for name, result in results.items() if result != "PASSED"})
    if status == 1 and files and (stopped := machine.panicked(begun)):
        print(f"lab: WARNING: the kernel of machine {stopped} stopped: its emulation's fault; again: {' '.join(files)}")
        status, again = _pytest([*files, *arguments])
        results |= again
    passed = sum(result == "PASSED" for result in results.values())
    print(f"{passed} passed, {len(results) - passed or int(status != 0)} failed")
    return status


def _pytest(arguments: list[str]) -> tuple[int, dict[str, str]]:
    """Run tests and show what they print; return pytest's exit status, and the worst result of each test."""
    python = Path(os.environ.get("ACCELSCHED_VENV") or _ROOT / ".venv") / "bin/python"
    command = [python, "-m", "pytest", "-v", "--durations=0", *arguments]
    tests = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    assert tests.stdout is not None
    results: dict[str, str] = {}
    for line in tests.stdout:
        print(line, end="", flush=True)
        if told := re.match(r"(tests/lab/\S+::\S+) (PASSED|FAILED|ERROR)\s", line):
            name, result = told.groups()
            results[name] = result if results.get(name, "PASSED") == "PASSED" else results[name]
    return tests.wait(), results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
