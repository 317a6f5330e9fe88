# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who is told a password, and which."""

from __future__ import annotations

import re

import pytest

from accelsched import conf as options
from accelsched.api.compute import passwords


@pytest.mark.parametrize(
    ("enabled", "given", "told"),
    [(True, "mine", True), (True, None, True), (False, "mine", False), (False, None, False)],
)
def test_one_is_made_up_and_told_unless_the_deployment_does_not(enabled: bool, given: str | None, told: bool) -> None:
    conf = options.new()
    options.parse(conf, [], "test")
    conf.set_override("enable_instance_password", enabled, group="api")
    password = passwords.given_or_made({} if given is None else {"adminPass": given}, conf)
    assert (password is None) == (given is None and not enabled)
    assert given in (None, password)
    assert passwords.shown(password, conf) == ({"adminPass": password} if told else {})


def test_made_up_ones_differ_and_hold_every_kind_of_character() -> None:
    conf = options.new()
    options.parse(conf, [], "test")
    made = [passwords.given_or_made({}, conf) or "" for _ in range(200)]
    assert len(set(made)) == 200
    assert all(re.search("[0-9]", one) and re.search("[a-z]", one) and re.search("[A-Z]", one) for one in made)
    assert all(len(one) == 12 for one in made)
