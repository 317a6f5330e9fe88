# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON schemas of flavors."""

from __future__ import annotations

from typing import Any

from accelsched.api.compute.parameter_types import BOOLEAN
from accelsched.api.resources import validator

_MOST = 2**31 - 1
# Anything printable, with no blank at either end.
NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\s\x00-\x1f](.*[^\s\x00-\x1f])?$"}
_FLAVOR_ID = {
    "type": ["string", "number", "null"],
    "pattern": r"^[a-zA-Z0-9. _-]*$",
    "maxLength": 255,
    "minLength": 1,
}


def _amount(least: int) -> dict[str, object]:
    # Nova takes numbers in strings as well.
    return {"type": ["integer", "string"], "pattern": "^[0-9]{1,10}$", "minimum": least, "maximum": _MOST}


_PROPERTIES = {
    "name": NAME,
    "id": _FLAVOR_ID,
    "ram": _amount(1),
    "vcpus": _amount(1),
    "disk": _amount(0),
    "OS-FLV-EXT-DATA:ephemeral": _amount(0),
    "swap": _amount(0),
    "rxtx_factor": {
        "type": ["number", "string"],
        "pattern": r"^[0-9]{1,10}(\.[0-9]{1,10})?$",
        "exclusiveMinimum": 0,
        "maximum": 3e38,
    },
    "os-flavor-access:is_public": BOOLEAN,
}
_DESCRIPTION = {"type": ["string", "null"], "maxLength": 65535, "pattern": r"^[^\x00]*$"}


def _flavor(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {
            "flavor": {
                "type": "object",
                "properties": properties,
                "required": ["name", "ram", "vcpus", "disk"],
                "additionalProperties": False,
            }
        },
        "required": ["flavor"],
        "additionalProperties": False,
    }


CREATE = validator(_flavor(dict(_PROPERTIES)))
CREATE_2_55 = validator(_flavor({**_PROPERTIES, "description": _DESCRIPTION}))

UPDATE_2_55 = validator(
    {
        "type": "object",
        "properties": {
            "flavor": {
                "type": "object",
                "properties": {"description": _DESCRIPTION},
                "required": ["description"],
                "additionalProperties": False,
            }
        },
        "required": ["flavor"],
        "additionalProperties": False,
    }
)

_SPEC_KEY = r"^[a-zA-Z0-9_:. -]{1,255}$"
_SPEC_VALUE = {"type": ["string", "number"], "maxLength": 255}
SPECS: dict[str, Any] = {
    "type": "object",
    "patternProperties": {_SPEC_KEY: _SPEC_VALUE},
    "additionalProperties": False,
    "maxProperties": 256,
}
EXTRA_SPECS = validator(
    {
        "type": "object",
        "properties": {"extra_specs": SPECS},
        "required": ["extra_specs"],
        "additionalProperties": False,
    }
)
EXTRA_SPEC = validator(
    {
        "type": "object",
        "patternProperties": {_SPEC_KEY: _SPEC_VALUE},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
)

_TENANT = {
    "type": "object",
    "properties": {"tenant": {"type": "string", "minLength": 1, "maxLength": 255}},
    "required": ["tenant"],
    "additionalProperties": False,
}
ACTION = validator(
    {
        "type": "object",
        "properties": {"addTenantAccess": _TENANT, "removeTenantAccess": _TENANT},
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
)
