# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whoever waits is told of every step."""

from __future__ import annotations

import re
import time

import pytest
from stack import progress


def test_a_step_is_told_at_its_start_and_end_with_its_time() -> None:
    lines: list[str] = []
    with progress.step("work", lines.append) as step:
        assert lines == ["... work"]
        step.detail = "3 things"
    assert re.fullmatch(r"ok  work: 3 things \(\d+\.\d s\)", lines[-1])


def test_a_long_step_is_told_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.01)
    lines: list[str] = []
    with progress.step("work", lines.append) as step:
        step.detail = "(half)"
        deadline = time.monotonic() + 5
        # The first line may have been told before there was a detail.
        while not lines[-1].endswith("(half)") and time.monotonic() < deadline:
            time.sleep(0.01)
        told = lines[-1]
    assert re.fullmatch(r" +\d s: work \(half\)", told)


def test_a_failed_step_is_told_as_such() -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match="broken"), progress.step("work", lines.append):
        raise ValueError("broken")
    assert lines[-1].startswith("FAILED work")
