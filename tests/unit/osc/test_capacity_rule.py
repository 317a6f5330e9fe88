# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The options that give a rule, and a rule as people read it."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest
from osc_lib import exceptions

from accelsched.osc import capacity_rule


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"one_type": None, "budget": None, "cost": [], "document": None, **given})


def test_options_say_the_simple_rules() -> None:
    assert capacity_rule.rule_of(options(one_type="A,B")) == {"type": "one_type", "resource_classes": ["A", "B"]}
    budget = capacity_rule.rule_of(options(budget=24, cost=["A=4", "B=8"]))
    assert budget == {"type": "budget", "budget": 24, "costs": {"A": 4, "B": 8}}


def test_a_document_may_be_what_show_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"type": "one_type", "resource_classes": ["A"]}
    path = tmp_path / "rule.json"
    path.write_text('{"capacity_rule": {"type": "one_type", "resource_classes": ["A"]}, "ceilings": {}}')
    assert capacity_rule.rule_of(options(document=str(path))) == rule
    monkeypatch.setattr("sys.stdin", io.StringIO('{"type": "one_type", "resource_classes": ["A"]}'))
    assert capacity_rule.rule_of(options(document="-")) == rule


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"budget": 4}, "--cost"),
        ({"one_type": "A", "cost": ["A=1"]}, "--budget"),
        ({"budget": 4, "cost": ["A"]}, "--cost A: "),
        ({"budget": 4, "cost": ["A=x"]}, "--cost A=x: "),
        ({"document": "/no/such/file"}, "/no/such/file"),
        ({"document": "/dev/null"}, "/dev/null"),
    ],
)
def test_options_that_make_no_rule_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(exceptions.CommandError, match=told):
        capacity_rule.rule_of(options(**given))


def test_slices_are_shown_as_their_maker_lists_them() -> None:
    rows = capacity_rule.readable(
        {
            "resource_provider_generation": 3,
            "capacity_rule": {
                "type": "slices",
                "memory_slices": 8,
                "compute_slices": 7,
                "profiles": {"A": {"memory_slices": 4, "compute_slices": 3, "starts": [0, 4]}},
            },
            "ceilings": {"A": 2},
            "positions": [{"consumer_uuid": "s-1", "resource_class": "A", "start": 4}],
        }
    )
    assert rows == {
        "generation": "3",
        "rule": "7 compute and 8 memory slices\nA: 3 compute, memory {0,4}:4",
        "at most just now": "A: 2",
        "positions": "4: A of s-1",
    }
