# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The differential test for as long as one likes: see ``tools/compare-placement --help``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import placement_pair
from hypothesis import HealthCheck, Phase, given, seed, settings
from placement_comparison import Comparison, Difference
from placement_exchange import Step
from placement_requests import dialogues

# Hypothesis begins every run with small examples, but not so short a one.
_DIALOGUES_A_ROUND = 9


class _TimeOver(BaseException):
    """Nothing that hypothesis would take for a failure."""


def compare(comparison: Comparison, number: int, requests: int, deadline: float = float("inf")) -> None:
    """Run one round of random dialogues; the seed says which.

    :param requests: how many a dialogue asks after its fleet is made
    :param deadline: of :func:`time.monotonic`; the round is left when it is over
    :raises placement_comparison.Difference: the first difference, as small as hypothesis could make it
    """

    @seed(number)
    @settings(
        max_examples=_DIALOGUES_A_ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(dialogues(requests))
    def talk(dialogue: list[Step]) -> None:
        if time.monotonic() > deadline and not found:
            raise _TimeOver
        try:
            comparison.run(dialogue)
        except Exception as problem:
            if not found:
                print(f"{_now()} {type(problem).__name__}: {problem}\n{_now()} is made smaller", flush=True)
            found.append(problem)
            raise

    found: list[Exception] = []
    with contextlib.suppress(_TimeOver):
        talk()


def main(argv: Sequence[str] | None = None) -> int:
    """Compare until the time is over or something differs; return 1 when something did."""
    parser = argparse.ArgumentParser(prog="compare-placement", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(2**31), help="of the first round; the next is one more"
    )
    parser.add_argument(
        "--requests", type=int, default=60, help="in a dialogue, beside those that make its fleet (%(default)s)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="say a dialogue again, as it was printed")
    arguments = parser.parse_args(argv)
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="compare-placement-", dir=memory if memory.is_dir() else None) as directory,
        placement_pair.running(Path(directory)) as (theirs, ours),
    ):
        comparison = Comparison(theirs, ours)
        try:
            if arguments.replay:
                # A test's own output: it is trusted.
                comparison.run(eval(arguments.replay.read_text(), {"Step": Step}))
            else:
                _go_on(comparison, arguments.seed, arguments.requests, arguments.minutes * 60)
        except Difference as difference:
            print(f"{_now()} {difference}", flush=True)
            return 1
    return 0


def _go_on(comparison: Comparison, number: int, requests: int, seconds: float) -> None:
    """Run rounds until the time is over."""
    begin = time.monotonic()
    print(f"{_now()} {seconds / 60:g} minutes, {requests} requests a dialogue, first seed {number}", flush=True)
    while time.monotonic() - begin < seconds:
        compare(comparison, number, requests, begin + seconds)
        print(f"{_now()} seed {number}: {comparison.count.summary(time.monotonic() - begin)}", flush=True)
        number += 1
    print(f"{_now()} no difference. {comparison.count.details()}", flush=True)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
