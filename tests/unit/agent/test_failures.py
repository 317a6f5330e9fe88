# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Builds that failed, remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsched.agent.failures import Failures
from accelsched.agent.plan import Failure

FAILURE = Failure("f", {"message": "no", "details": "really"})


def test_a_failure_outlives_the_agent_until_its_server_is_not_wanted_any_more(tmp_path: Path) -> None:
    Failures(tmp_path / "failures").record("s", FAILURE)
    again = Failures(tmp_path / "failures")
    assert again.all() == {"s": FAILURE}
    again.keep({"s"})
    assert Failures(tmp_path / "failures").all() == {"s": FAILURE}
    again.keep(set())
    again.keep(set())
    assert Failures(tmp_path / "failures").all() == {}


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": "f"}', '{"fingerprint": "f", "fault": 3}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "s").write_text(text)
    assert Failures(tmp_path).all() == {}


def test_without_a_directory_it_is_memory_only() -> None:
    failures = Failures(None)
    failures.record("s", FAILURE)
    assert failures.all() == {"s": FAILURE}
    failures.keep(set())
    assert failures.all() == {}
