# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on the way up, said so that an operator knows what to do next."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """A step failed.

    :param message: what went wrong and what to do next
    :param log: the log that tells more, when there is one
    """

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message if log is None else f"{message}\n  log: {log}{_tail(log)}")
        self.log = log


def _tail(log: Path, lines: int = 8) -> str:
    try:
        last = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "".join(f"\n    {line[:200]}" for line in last)
