# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What bodies and queries are checked with is right itself; a process would pay half a second at its start to look."""

from __future__ import annotations

import gc

import jsonschema

import accelsched.api.app  # noqa: F401 - which makes every validator there is


def test_every_schema_is_one() -> None:
    schemas = [each.schema for each in gc.get_objects() if type(each) is jsonschema.Draft202012Validator]
    assert len(schemas) > 100
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)
