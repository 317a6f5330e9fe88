# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from labvm import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELSCHED_CACHE", str(tmp_path))


def test_a_step_is_made_once_for_the_same_inputs_and_again_for_others() -> None:
    made: list[str] = []
    first = cache.step("thing", ["1"], lambda into: (into / "result").write_text("one") and made.append("one"))
    again = cache.step("thing", ["1"], lambda into: made.append("not wanted"))
    other = cache.step("thing", ["2"], lambda into: (into / "result").write_text("two") and made.append("two"))
    assert (first == again, first == other) == (True, False)
    assert made == ["one", "two"]
    assert [(path / "result").read_text() for path in (first, other)] == ["one", "two"]


def test_a_step_that_fails_leaves_nothing_that_counts_as_its_result() -> None:
    def fail(into: Path) -> None:
        (into / "half").touch()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cache.step("thing", [], fail)
    assert list(cache.root().glob("thing-*")) == []
    assert cache.step("thing", [], lambda into: (into / "whole").touch()).is_dir()


def test_a_digest_changes_with_any_file(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text("same")
    before = cache.digest(files)
    files[1].write_text("other")
    assert cache.digest(files) != before
