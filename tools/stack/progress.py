# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Progress for whoever waits: one line when a step begins, one when it ends, one every ten seconds between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str], None]
HEARTBEAT_S = 10.0


def say(line: str) -> None:
    """Print a line at once, whatever stdout is."""
    print(line, flush=True)


def silent(_line: str) -> None:
    """Report to nobody: for tests."""


class Step:
    """A step under way; set :attr:`detail` to tell more in its lines."""

    def __init__(self) -> None:
        self.detail = ""


@contextmanager
def step(name: str, report: Report = say) -> Iterator[Step]:
    """Report how long the block takes."""
    began = time.monotonic()
    done = threading.Event()
    current = Step()

    def heartbeat() -> None:
        while not done.wait(HEARTBEAT_S):
            report(f"    {time.monotonic() - began:.0f} s: {name} {current.detail}".rstrip())

    report(f"... {name}")
    ticker = threading.Thread(target=heartbeat, daemon=True)
    ticker.start()
    try:
        yield current
    except BaseException:
        report(f"FAILED {name} ({time.monotonic() - began:.1f} s)")
        raise
    finally:
        done.set()
        ticker.join()
    report(f"ok  {name}{': ' + current.detail if current.detail else ''} ({time.monotonic() - began:.1f} s)")
