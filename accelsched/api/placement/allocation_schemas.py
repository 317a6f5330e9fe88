# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Bodies that allocate, as each microversion has them."""

from __future__ import annotations

from typing import Any

from accelsched.api.placement.handler import CLASS_PATTERN, MANY, TEXT_PATTERN, UUID_KEY_PATTERN, body_validator

# From which minor version on:
OWNERS = 8  # project_id and user_id
BY_PROVIDER = 12  # allocations by provider uuid; a list before
SEVERAL = 13  # POST /allocations
CONSUMER_GENERATIONS = 28
MAPPINGS = 34
CONSUMER_TYPES = 38

_OWNER: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": TEXT_PATTERN}
_RESOURCES: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": MANY,
    "patternProperties": {CLASS_PATTERN: {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}
_LISTED: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MANY,
    "items": {
        "type": "object",
        "properties": {
            "resource_provider": {
                "type": "object",
                "properties": {"uuid": {"type": "string", "format": "uuid"}},
                "required": ["uuid"],
                "additionalProperties": False,
            },
            "resources": _RESOURCES,
        },
        "required": ["resource_provider", "resources"],
        "additionalProperties": False,
    },
}
_MAPPINGS: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "patternProperties": {
        "[a-zA-Z0-9_-]{1,64}": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "uuid"}}
    },
}
_CONSUMER_TYPE: dict[str, Any] = {"type": "string", "pattern": CLASS_PATTERN, "minLength": 1, "maxLength": 255}


def _by_provider(at_least: int) -> dict[str, Any]:
    share = {
        "type": "object",
        "properties": {"generation": {"type": "integer"}, "resources": _RESOURCES},
        "required": ["resources"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "minProperties": at_least,
        "maxProperties": MANY,
        "patternProperties": {UUID_KEY_PATTERN: share},
        "additionalProperties": False,
    }


def of_consumer(minor: int, *, may_be_empty: bool) -> dict[str, Any]:
    """Return the schema of what one consumer shall hold.

    :param may_be_empty: whether it may hold nothing from then on
    """
    properties: dict[str, Any] = {
        "allocations": _LISTED if minor < BY_PROVIDER else _by_provider(int(not may_be_empty))
    }
    required = ["allocations"]
    if minor >= OWNERS:
        properties |= {"project_id": _OWNER, "user_id": _OWNER}
        required += ["project_id", "user_id"]
    if minor >= CONSUMER_GENERATIONS:
        properties["consumer_generation"] = {"type": ["integer", "null"]}
        required.append("consumer_generation")
    if minor >= MAPPINGS:
        properties["mappings"] = _MAPPINGS
    if minor >= CONSUMER_TYPES:
        properties["consumer_type"] = _CONSUMER_TYPE
        required.append("consumer_type")
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def of_consumers(minor: int, *, at_least: int) -> dict[str, Any]:
    """Return the schema of what several consumers shall hold, by consumer uuid."""
    return {
        "type": "object",
        "minProperties": at_least,
        "patternProperties": {UUID_KEY_PATTERN: of_consumer(minor, may_be_empty=True)},
        "additionalProperties": False,
    }


PUT = {
    minor: body_validator(of_consumer(minor, may_be_empty=minor >= CONSUMER_GENERATIONS))
    for minor in (0, OWNERS, BY_PROVIDER, CONSUMER_GENERATIONS, MAPPINGS, CONSUMER_TYPES)
}
POST = {
    minor: body_validator(of_consumers(minor, at_least=1))
    for minor in (SEVERAL, CONSUMER_GENERATIONS, MAPPINGS, CONSUMER_TYPES)
}
