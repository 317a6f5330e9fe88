# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages that get lost, or twice or late to where they go, for tests to see that it makes no difference.

Off unless ``ACCELSCHED_FAIL_POINTS`` names a directory, as for :mod:`accelsched.failpoints`, and there is a file
``messages`` in it. Then every other message, drawn by lot, suffers one of the faults that the file names.
"""

from __future__ import annotations

import contextlib
import enum
import os
import random
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_DIRECTORY = os.environ.get("ACCELSCHED_FAIL_POINTS")
_LATE_S = 2.0


class Fault(enum.StrEnum):
    """What happens to a message. Whoever waits for an answer hears at once what it would hear after its timeout."""

    LOST = "lost"  # it does not arrive
    UNANSWERED = "unanswered"  # it arrives, and its answer does not
    DOUBLED = "doubled"  # it arrives twice
    LATE = "late"  # it arrives after what was sent after it, unanswered


def draw() -> Fault | None:
    """Return what is to happen to the next message."""
    if _DIRECTORY is None:
        return None
    try:
        faults = Path(_DIRECTORY, "messages").read_text().split()
    except FileNotFoundError:
        return None
    return Fault(random.choice(faults)) if random.random() < 0.5 else None  # noqa: S311 - no secret


def send(message: Callable[[], T], unanswered: Callable[[], T]) -> T:
    """Send a message, or do to it what was drawn.

    :param message: sends it, and returns its answer
    :param unanswered: what its sender does without an answer
    """
    match draw():
        case None:
            return message()
        case Fault.LOST:
            return unanswered()
        case Fault.UNANSWERED:
            message()
            return unanswered()
        case Fault.DOUBLED:
            message()
            return message()
        case Fault.LATE:
            _send_late(message)
            return unanswered()


def _send_late(message: Callable[[], object]) -> None:
    """Send a message in a while; until it has arrived there is a file for it, so that a test can wait for that."""
    under_way = Path(str(_DIRECTORY), f"late.{uuid.uuid4().hex}")
    under_way.touch()

    def arrive() -> None:
        try:
            with contextlib.suppress(Exception):  # nobody waits for it any more
                message()
        finally:
            under_way.unlink()

    timer = threading.Timer(_LATE_S, arrive)
    timer.daemon = True
    timer.start()
