# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of the things that agents say are news."""

from __future__ import annotations

from typing import Any

from accelsched.compute import hearing


def test_what_comes_again_or_after_what_was_said_later_is_old() -> None:
    heard: Any = None
    news = []
    for host, run, number in [
        ("a", "one", 2),
        ("a", "one", 2),
        ("a", "one", 1),
        ("a", "one", 5),
        ("b", "two", 1),
        ("a", "one", 4),
        ("a", "three", 1),  # the agent was started again
        ("a", "one", 6),
        ("a", "three", 2),
    ]:
        taken = hearing.take(heard, host, {"run": run, "number": number})
        news.append(taken is not None)
        heard = heard if taken is None else taken
    assert news == [True, False, False, True, True, False, True, False, True]


def test_agents_that_do_not_number_what_they_say_are_believed() -> None:
    heard = hearing.take(None, "a", {"run": "one", "number": 2})
    assert hearing.take(heard, "a", None) == heard
    assert hearing.take(None, "a", None) == {}


def test_a_server_that_has_been_everywhere_remembers_where_it_was_last() -> None:
    heard: Any = None
    for number in range(100):
        heard = hearing.take(heard, f"h{number}", {"run": "r", "number": 1})
    assert list(heard) == [f"h{number}" for number in range(92, 100)]
