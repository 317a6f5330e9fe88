# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of messages that suffer a fault: how often they arrive, and what their sender hears."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from accelsched import message_faults
from accelsched.message_faults import Fault


@pytest.mark.parametrize(
    ("fault", "arrives", "hears"),
    [(Fault.LOST, 0, "nothing"), (Fault.UNANSWERED, 1, "nothing"), (Fault.DOUBLED, 2, 2), (None, 1, 1)],
)
def test_a_message_arrives_and_is_answered_so_often(
    monkeypatch: pytest.MonkeyPatch, fault: Fault | None, arrives: int, hears: object
) -> None:
    monkeypatch.setattr(message_faults, "draw", lambda: fault)
    count = itertools.count(1)
    answer: object = message_faults.send(lambda: next(count), lambda: "nothing")  # type: ignore[arg-type, return-value]
    assert (answer, next(count) - 1) == (hears, arrives)


def test_a_late_message_arrives_after_its_sender_gave_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(message_faults, "_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(message_faults, "_LATE_S", 0.0)
    (tmp_path / "messages").write_text("late")
    monkeypatch.setattr(message_faults.random, "random", lambda: 0.0)
    may, arrived = threading.Event(), threading.Event()

    def message() -> str:
        may.wait(5)
        arrived.set()
        return "answer"

    assert message_faults.send(message, lambda: "nothing") == "nothing"
    assert not arrived.is_set()
    assert len(list(tmp_path.glob("late.*"))) == 1
    may.set()
    assert arrived.wait(5)


def test_nothing_happens_to_messages_unless_a_test_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(message_faults.random, "random", lambda: 0.0)
    assert message_faults.draw() is None
    monkeypatch.setattr(message_faults, "_DIRECTORY", str(tmp_path))
    assert message_faults.draw() is None
