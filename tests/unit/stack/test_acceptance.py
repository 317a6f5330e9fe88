# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Each command is judged by itself, and what is not supported yet is no failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from stack.acceptance.run import Run, StoryEndedError
from stack.errors import StackError


def test_each_command_is_counted_as_it_went_and_a_failure_tells_why(tmp_path: Path) -> None:
    lines: list[str] = []
    run = Run(tmp_path, lines.append)
    with run.command("stop"):
        pass
    with run.command("start"):
        raise AssertionError("the domain is off")
    with run.command("list"):
        assert run.passed == []
    with run.command("resize"):
        raise StackError("HTTP 501: The action resize is not supported by this release.")
    assert (run.passed, run.failed, run.unsupported) == (["stop"], ["start", "list"], ["resize"])
    assert lines[1] == "FAILED start: the domain is off"
    assert lines[2].startswith("FAILED list: ")


def test_a_story_ends_when_what_it_stands_on_fails(tmp_path: Path) -> None:
    run = Run(tmp_path, lambda _line: None)
    with pytest.raises(StoryEndedError), run.command("create", vital=True):
        raise StackError("No valid host was found.")
    assert run.failed == ["create"]


def test_waiting_ends_when_something_is_there_and_returns_it(tmp_path: Path) -> None:
    seen = iter([0, 3])
    assert Run(tmp_path, lambda _line: None).until(lambda: next(seen), "three") == 3
