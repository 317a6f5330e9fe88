# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hours of a period."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from accelsched.compute import usage

NOON = datetime.datetime(2026, 11, 25, 12)
moments = st.integers(-100, 100).map(lambda hours: NOON + datetime.timedelta(hours=hours))


@given(st.none() | moments, st.none() | moments, st.lists(moments, min_size=3, max_size=3, unique=True))
def test_periods_side_by_side_add_up_to_the_whole(launched_at, ended_at, bounds):
    if launched_at and ended_at:
        launched_at, ended_at = sorted((launched_at, ended_at))
    start, middle, stop = sorted(bounds)
    whole, *parts = (
        usage.hours(launched_at, ended_at, usage.Period(*period))
        for period in ((start, stop), (start, middle), (middle, stop))
    )
    assert whole == sum(parts)
    assert 0 <= whole <= (stop - start).total_seconds() / 3600


def test_a_server_counts_from_its_launch_to_its_end():
    def hours(launched: int | None, ended: int | None) -> float:
        launched_at, ended_at = (None if n is None else NOON + datetime.timedelta(hours=n) for n in (launched, ended))
        return usage.hours(launched_at, ended_at, usage.Period(NOON, NOON + datetime.timedelta(hours=10)))

    assert [hours(-5, None), hours(2, None), hours(2, 5), hours(-5, 3), hours(-5, -1)] == [10, 8, 3, 3, 0]
    assert [hours(None, None), hours(None, 3), hours(11, None)] == [0, 0, 0]
