# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Waiting for what must happen. How long is a bound against hanging, never an expectation of speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 150.0
"""Seconds after which something is taken to hang: several times what the slowest machine needs for the slowest step."""


def wait(
    check: Callable[[], Any], limit_s: float = LIMIT_S, interval_s: float = 0.1, told: Callable[[], object] = str
) -> Any:
    """Return the first true value of a check.

    :param told: what to say when there is none, asked then
    :raises AssertionError: after ``limit_s`` seconds
    """
    deadline = time.monotonic() + limit_s
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {told()}"
        time.sleep(interval_s)
    return value
