# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which microversion a header asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched.api.placement import microversion


@pytest.mark.parametrize(
    ("header", "minor"),
    [
        (None, 0),
        ("", 0),
        ("placement 1.0", 0),
        ("placement 1.39", 39),
        ("placement latest", 39),
        ("placement 1.010", 10),
        ("Placement  1.7", 7),
        ("compute 2.96", 0),
        ("1.12", 0),
        ("placement", 0),
        ("compute 2.96, placement 1.12", 12),
        ("placement 1.3, compute 2.1, placement 1.4", 4),
    ],
)
def test_the_last_version_for_this_service_counts(header: str | None, minor: int) -> None:
    assert microversion.parse(header) == minor


@pytest.mark.parametrize("version", ["1.40", "2.0", "0.9", "1.999999999", "1.-1", "-1.2"])
def test_versions_that_do_not_exist_are_unknown(version: str) -> None:
    with pytest.raises(microversion.UnknownVersionError):
        microversion.parse(f"placement {version}")


@pytest.mark.parametrize("version", ["1", "one.two", "1.2.3", "1.", ".1", "Latest", "1." + "9" * 5000])
def test_garbage_is_malformed(version: str) -> None:
    with pytest.raises(microversion.MalformedVersionError):
        microversion.parse(f"placement {version}")


@given(st.text())
def test_no_header_is_anything_but_a_version_or_refused(header: str) -> None:
    try:
        minor = microversion.parse(header)
    except (microversion.MalformedVersionError, microversion.UnknownVersionError):
        return
    assert 0 <= minor <= 39


def test_what_was_introduced_last_holds() -> None:
    choices = {0: "a", 8: "b", 12: "c"}
    assert [microversion.pick(choices, minor) for minor in (0, 7, 8, 11, 12, 39)] == ["a", "a", "b", "b", "c", "c"]
