# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What bodies and queries are checked with is right itself; a process would pay half a second at its start to look."""

from __future__ import annotations

import gc

import jsonschema
import pytest

import accelsched.api.app  # noqa: F401 - which makes every validator there is
from accelsched import errors
from accelsched.api import resources


def test_every_schema_is_one() -> None:
    schemas = [each.schema for each in gc.get_objects() if type(each) is jsonschema.Draft202012Validator]
    assert len(schemas) > 100
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": "^a+$"}, "aa", "aa\n"),
        ({"properties": {"pattern": {"anyOf": [{"pattern": "^a$"}]}}}, {"pattern": "a"}, {"pattern": "a\n"}),
        ({"patternProperties": {"^a$": {}}, "additionalProperties": False}, {"a": 1}, {"a\n": 1}),
        ({"pattern": r"^a\$"}, "a$", "a"),
    ],
)
def test_a_text_matches_to_its_end_and_not_to_a_newline_before(schema, good, bad) -> None:
    resources.check(resources.validator(schema), good)
    with pytest.raises(errors.InvalidError):
        resources.check(resources.validator(schema), bad)
