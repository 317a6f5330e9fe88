# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a create call may hold, by microversion."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched import errors
from accelsched.api import resources
from accelsched.api.compute import server_schemas

BASE = {"name": "one", "flavorRef": "1"}


def valid(minor: int, **server: Any) -> bool:
    try:
        resources.check(server_schemas.create(minor), {"server": BASE | server})
    except errors.InvalidError:
        return False
    return True


@pytest.mark.parametrize(
    ("field", "value", "since"),
    [
        ("description", "text", 19),
        ("tags", ["a"], 52),
        ("trusted_image_certificates", None, 63),
        ("host", "h", 74),
        ("hypervisor_hostname", "h", 74),
        ("hostname", "h", 90),
        ("hostname", "h.example", 94),
    ],
)
def test_a_field_is_known_from_its_microversion_on(field, value, since):
    for minor in range(1, 97):
        assert valid(minor, networks=[], **{field: value}) is (minor >= since), minor


def test_a_host_is_named_as_a_host_can_be():
    for name in ("node-1.example", "rack_7"):
        assert valid(74, networks=[], host=name)
    for name in ("", "a b", "a/b", "h\n"):
        assert not valid(74, networks=[], host=name)
        assert not valid(74, networks=[], hypervisor_hostname=name)


def test_networks_may_be_left_out_until_they_must_be_there():
    for minor in range(1, 97):
        assert valid(minor) is (minor < 37), minor
        assert valid(minor, networks="none") is (minor >= 37), minor
        assert valid(minor, networks=[])


def test_personality_is_gone_from_57():
    assert valid(56, networks=[], personality=[])
    assert not valid(57, networks=[], personality=[])


def test_the_place_of_a_fault_is_told_and_huge_values_are_not_repeated():
    body = {"server": BASE | {"metadata": {"key": "v" * 100_000}}}
    with pytest.raises(errors.InvalidError) as caught:
        resources.check(server_schemas.create(1), body)
    assert "server.metadata.key" in str(caught.value)
    assert len(str(caught.value)) < 1000
