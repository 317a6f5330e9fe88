# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Random dialogues with ours and with OpenStack Placement, and what in them may differ.

``tools/compare-placement`` goes on with them for as long as one likes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import placement_candidates_compared as candidates
import placement_pair
import placement_tolerated as tolerated
import placement_tolerated_dialogues as dialogues
import pytest
from placement_comparison import Comparison
from placement_exchange import Answer, Step
from placement_marathon import compare

# Each is a round of nine dialogues, always the same ones.
_SEEDS = range(1, 3)
_REQUESTS = 30


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with placement_pair.running(tmp_path_factory.mktemp("pair")) as (theirs, ours):
        yield Comparison(theirs, ours)


def test_whatever_is_asked_the_answers_are_those_of_placement(comparison: Comparison) -> None:
    for seed in _SEEDS:
        compare(comparison, seed, _REQUESTS)
    assert comparison.count.requests > 500
    assert comparison.count.candidates > 10


def _said(comparison: Comparison, dialogue: list[Step]) -> tuple[Step, Answer, Answer]:
    """Say a dialogue, and return its last step with both answers."""
    comparison.start()
    for symbolic in dialogue:
        step = comparison.filled_in(symbolic)
        theirs, ours = comparison.ask(step)
        assert symbolic is dialogue[-1] or theirs.status < 300, step
    return step, theirs, ours


def _mistakes(answer: Answer) -> list[Answer]:
    """Return answers that would be wrong in the place of a right one."""
    wrong = [dataclasses.replace(answer, status=status) for status in (200, 404, 409, 500) if status != answer.status]
    wrong.append(dataclasses.replace(answer, body={}))
    if answer.status == 200 and answer.body.get("allocation_requests"):
        requests = answer.body["allocation_requests"]
        claiming_more = json.loads(json.dumps(requests).replace('{"VCPU": 1}', '{"VCPU": 2}'))
        wrong += [
            dataclasses.replace(answer, body={**answer.body, "allocation_requests": other})
            for other in (requests[1:], claiming_more)
        ]
    return wrong


@pytest.mark.parametrize("tolerance", tolerated.TOLERATED, ids=lambda tolerance: tolerance.name)
def test_a_tolerance_is_met_and_takes_only_the_right_answer(
    comparison: Comparison, tolerance: tolerated.Tolerance
) -> None:
    for dialogue in dialogues.TOLERATED[tolerance.name]:
        step, theirs, ours = _said(comparison, dialogue)
        assert theirs != ours
        assert tolerated.why(step, theirs, ours, comparison.ask) is tolerance
        for wrong in _mistakes(ours):
            assert tolerated.why(step, theirs, wrong, comparison.ask) is None, wrong


@pytest.mark.parametrize("kind", dialogues.WRONG)
def test_where_placement_lists_wrong_candidates_ours_are_right(comparison: Comparison, kind: str) -> None:
    step, theirs, ours = _said(comparison, dialogues.WRONG[kind])

    def difference(answer: Answer) -> str | None:
        return candidates.difference(step, theirs, answer, comparison.theirs.ask)

    assert difference(ours) is None
    assert difference(theirs) is not None
    fewer = ours.body["allocation_requests"][1:]
    if ours.body["allocation_requests"]:
        assert difference(dataclasses.replace(ours, body={**ours.body, "allocation_requests": fewer})) is not None


@pytest.mark.parametrize("what", dialogues.LEFT_BEHIND)
def test_what_placement_leaves_behind_is_left_at_ours(comparison: Comparison, what: str) -> None:
    comparison.run(dialogues.LEFT_BEHIND[what])
