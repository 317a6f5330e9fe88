# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The same talk with ours and with OpenStack Placement: the answers have to be the same."""

from __future__ import annotations

import placement_dialogue
import placement_peer
import pytest
from placement_exchange import Answer, Client, Step


@pytest.fixture(scope="module")
def answers_of_placement(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Step, Answer]]:
    with placement_peer.running(tmp_path_factory.mktemp("peer")) as url:
        client = Client(url)
        return [(step, client.ask(step)) for step in placement_dialogue.whole()]


def test_answers_are_those_of_placement(ours: Client, answers_of_placement: list[tuple[Step, Answer]]) -> None:
    differences = []
    for step, expected in answers_of_placement:
        answer = ours.ask(step)
        if answer != expected:
            differences.append(f"{step}\n  Placement: {expected}\n  ours:      {answer}")
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences[:20])
