# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which microversion a request gets."""

from __future__ import annotations

import falcon
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched.api.compute import microversion
from accelsched.api.compute.microversion import MAX, MIN, Version


@pytest.mark.parametrize(
    ("common", "own", "expected"),
    [
        (None, None, MIN),
        (None, "2.10", Version(2, 10)),
        (None, "latest", MAX),
        ("compute 2.20", "2.10", Version(2, 20)),
        ("placement 1.39", "2.10", Version(2, 10)),
        ("placement 1.39, compute 2.30", None, Version(2, 30)),
        ("Compute latest", None, MAX),
        ("", None, MIN),
    ],
)
def test_the_common_header_wins_and_other_services_do_not_count(common, own, expected):
    assert microversion.requested(common, own) == expected


@pytest.mark.parametrize("text", ["", "2", "2.x", "2.01", "two", "2.1.1", "-2.1", "compute"])
def test_what_is_no_version_is_a_bad_request(text):
    with pytest.raises(falcon.HTTPBadRequest):
        microversion.requested(None, text)


@given(st.integers(1, 9), st.integers(0, 300))
def test_a_version_is_served_exactly_when_it_is_in_range(major, minor):
    asked = Version(major, minor)
    if MIN <= asked <= MAX:
        assert microversion.requested(f"compute {asked}", None) == asked
    else:
        with pytest.raises(falcon.HTTPNotAcceptable):
            microversion.requested(f"compute {asked}", None)
