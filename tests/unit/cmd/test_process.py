# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Processes end when they are told to, whichever of their threads hears it."""

from __future__ import annotations

import subprocess
import sys

import patience

# Where the system hands a signal of the process to another thread, nothing wakes the first one.
_HEARD_ELSEWHERE = """
import signal, sys, threading, time
from accelsched.cmd import process

class Part:
    def start(self):
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self):
        time.sleep(0.5)  # by then the first thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def stop(self):
        print("stopped")

sys.exit(process.run("test", lambda: [Part()]))
"""


def test_a_signal_that_another_thread_gets_ends_the_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _HEARD_ELSEWHERE], timeout=patience.LIMIT_S, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr
