# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON schemas of servers, one for each microversion that changed them."""

from __future__ import annotations

from typing import Any

import jsonschema

from accelsched.api.compute.parameter_types import BOOLEAN
from accelsched.api.resources import validator

_NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\s\x00-\x1f](.*[^\s\x00-\x1f])?$"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\x00-\x1f]+$"}
_COUNT = {"type": ["integer", "string"], "pattern": "^[0-9]{1,9}$", "minimum": 1, "maximum": 2**31 - 1}
METADATA: dict[str, Any] = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9_:. -]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
    "maxProperties": 1024,  # fewer by [quota] metadata_items
}
_IMAGE_REF = {"type": "string", "maxLength": 2048}
_BLOCK_DEVICES = {
    "type": "array",
    "maxItems": 16,
    "items": {
        "type": "object",
        "properties": {
            "boot_index": {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]{1,9}$"},
            "delete_on_termination": BOOLEAN,
            "destination_type": {"enum": ["local", "volume"]},
            "source_type": {"enum": ["volume", "image", "snapshot", "blank"]},
            "uuid": {"type": "string", "maxLength": 255},
        },
        "maxProperties": 16,
    },
}
_NETWORKS = {
    "type": "array",
    "maxItems": 64,
    "items": {
        "type": "object",
        "properties": {"uuid": _TEXT, "port": {"type": ["string", "null"], "maxLength": 255}},
        "maxProperties": 8,
    },
}

_BASE: dict[str, Any] = {
    "name": _NAME,
    "imageRef": _IMAGE_REF,
    "flavorRef": {"type": ["string", "integer"], "minLength": 1, "maxLength": 2048},
    "adminPass": {"type": "string", "maxLength": 255},
    "metadata": METADATA,
    "networks": _NETWORKS,
    "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]},
    "accessIPv4": {"type": "string", "anyOf": [{"format": "ipv4"}, {"maxLength": 0}]},
    "accessIPv6": {"type": "string", "anyOf": [{"format": "ipv6"}, {"maxLength": 0}]},
    "personality": {"type": "array", "maxItems": 64},
    "availability_zone": _TEXT,
    "block_device_mapping": {"type": "array", "maxItems": 16},
    "block_device_mapping_v2": _BLOCK_DEVICES,
    "config_drive": BOOLEAN,
    "key_name": _TEXT,
    "min_count": _COUNT,
    "max_count": _COUNT,
    "return_reservation_id": BOOLEAN,
    "security_groups": {
        "type": "array",
        "maxItems": 64,
        "items": {"type": "object", "properties": {"name": _TEXT}, "additionalProperties": False},
    },
    "user_data": {"type": "string", "maxLength": 65535, "contentEncoding": "base64"},
}
_DESCRIPTION = {"type": ["string", "null"], "maxLength": 255, "pattern": r"^[^\x00]*$"}
TAG = {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"}
_HOSTNAME = {"type": "string", "minLength": 1, "maxLength": 63, "pattern": r"^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$"}
_FQDN = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$"}
_HOST = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9._-]+$"}

# What each microversion added; None takes away.
_CREATE_STEPS: list[tuple[int, dict[str, Any]]] = [
    (19, {"description": _DESCRIPTION}),
    (37, {"networks": {"anyOf": [_NETWORKS, {"enum": ["none", "auto"]}]}}),
    (52, {"tags": {"type": "array", "maxItems": 50, "items": TAG}}),
    (57, {"personality": None}),
    (63, {"trusted_image_certificates": {"type": ["array", "null"], "maxItems": 50, "items": _TEXT}}),
    (74, {"host": _HOST, "hypervisor_hostname": _HOST}),
    (90, {"hostname": _HOSTNAME}),
    (94, {"hostname": _FQDN}),
]
_UPDATE_STEPS: list[tuple[int, dict[str, Any]]] = [
    (1, {key: _BASE[key] for key in ("name", "OS-DCF:diskConfig", "accessIPv4", "accessIPv6")}),
    (19, {"description": _DESCRIPTION}),
    (90, {"hostname": _HOSTNAME}),
    (94, {"hostname": _FQDN}),
]

_UUID = {"type": "string", "format": "uuid"}
_UUIDS = {"anyOf": [_UUID, {"type": "array", "maxItems": 1024, "items": _UUID}]}
HINTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "group": _UUID,
        "different_host": _UUIDS,
        "same_host": _UUIDS,
        # JSON, as a text or as it is; see accelsched.scheduler.filters.json_query.
        "query": {"anyOf": [{"type": "string", "maxLength": 65535}, {"type": ["object", "array"], "maxItems": 1024}]},
        "target_cell": _TEXT,
        "different_cell": {"anyOf": [_TEXT, {"type": "array", "maxItems": 1024, "items": _TEXT}]},
        "build_near_host_ip": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
        "cidr": {"type": "string", "pattern": "^/[0-9a-f.:]{1,45}$"},
    },
    "maxProperties": 64,
    "propertyNames": {"maxLength": 255},
    "additionalProperties": {
        "anyOf": [
            {"type": ["string", "number", "boolean"], "maxLength": 65535},
            {"type": "array", "maxItems": 1024, "items": {"type": ["string", "number"], "maxLength": 255}},
            {"type": "object", "maxProperties": 64},
        ]
    },
}


def _wrapped(properties: dict[str, Any], required: list[str], **beside: Any) -> jsonschema.protocols.Validator:
    server = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return validator(
        {
            "type": "object",
            "properties": {"server": server, **beside},
            "required": ["server"],
            "additionalProperties": False,
        }
    )


def _applied(properties: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**properties, **change}.items() if value is not None}


def _create_validators() -> list[tuple[int, jsonschema.protocols.Validator]]:
    hints = {"os:scheduler_hints": HINTS, "OS-SCH-HNT:scheduler_hints": HINTS}
    properties = dict(_BASE)
    made = [(1, _wrapped(properties, ["name", "flavorRef"], **hints))]
    for minor, change in _CREATE_STEPS:
        properties = _applied(properties, change)
        required = ["name", "flavorRef"] if minor < 37 else ["name", "flavorRef", "networks"]
        made.append((minor, _wrapped(properties, required, **hints)))
    return made


def _update_validators() -> list[tuple[int, jsonschema.protocols.Validator]]:
    made: list[tuple[int, jsonschema.protocols.Validator]] = []
    properties: dict[str, Any] = {}
    for minor, change in _UPDATE_STEPS:
        properties = _applied(properties, change)
        made.append((minor, _wrapped(properties, [])))
    return made


_CREATE = _create_validators()
_UPDATE = _update_validators()


def create(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of ``POST /servers`` at microversion ``2.minor``."""
    return [schema for since, schema in _CREATE if since <= minor][-1]


def update(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of ``PUT /servers/{id}`` at microversion ``2.minor``."""
    return [schema for since, schema in _UPDATE if since <= minor][-1]


METADATA_SET = validator(
    {
        "type": "object",
        "properties": {"metadata": METADATA},
        "required": ["metadata"],
        "additionalProperties": False,
    }
)
METADATA_ITEM = validator(
    {
        "type": "object",
        "properties": {"meta": {**METADATA, "minProperties": 1, "maxProperties": 1}},
        "required": ["meta"],
        "additionalProperties": False,
    }
)
ONE_TAG = validator(TAG)
TAGS = validator(
    {
        "type": "object",
        "properties": {"tags": {"type": "array", "maxItems": 50, "items": TAG}},
        "required": ["tags"],
        "additionalProperties": False,
    }
)
CONSOLE_OUTPUT = validator(
    {
        "type": ["object", "null"],
        "properties": {
            "length": {"type": ["integer", "string", "null"], "pattern": "^(-1|[0-9]{1,9})$", "minimum": -1},
        },
        "additionalProperties": False,
    }
)
CONSOLE = validator(
    {"type": "object", "properties": {"type": _TEXT}, "required": ["type"], "additionalProperties": False}
)
REBOOT = validator(
    {
        "type": "object",
        "properties": {"type": {"enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}},
        "required": ["type"],
        "additionalProperties": False,
    }
)
RESET_STATE = validator(
    {
        "type": "object",
        "properties": {"state": {"enum": ["active", "error"]}},
        "required": ["state"],
        "additionalProperties": False,
    }
)
RESCUE = validator(
    {
        "type": "object",
        "properties": {
            "adminPass": {"type": "string", "maxLength": 255},
            "rescue_image_ref": _UUID,
        },
        "additionalProperties": False,
    }
)
CREATE_IMAGE = validator(
    {
        "type": "object",
        "properties": {"name": _NAME, "metadata": METADATA},
        "required": ["name"],
        "additionalProperties": False,
    }
)
CREATE_BACKUP = validator(
    {
        "type": "object",
        "properties": {
            "name": _NAME,
            "backup_type": {"type": "string", "minLength": 1, "maxLength": 255},
            "rotation": {"type": ["integer", "string"], "pattern": "^[0-9]{1,4}$", "minimum": 0, "maximum": 9999},
            "metadata": METADATA,
        },
        "required": ["name", "backup_type", "rotation"],
        "additionalProperties": False,
    }
)
_REBUILD: dict[str, Any] = {
    "imageRef": {**_IMAGE_REF, "minLength": 1},
    "name": _NAME,
    "adminPass": {"type": "string", "maxLength": 255},
    "metadata": METADATA,
    "preserve_ephemeral": BOOLEAN,
    "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]},
    "accessIPv4": _BASE["accessIPv4"],
    "accessIPv6": _BASE["accessIPv6"],
    "personality": _BASE["personality"],
}
_REBUILD_STEPS: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (19, {"description": _DESCRIPTION}),
    (54, {"key_name": {"anyOf": [_TEXT, {"type": "null"}]}}),
    (57, {"personality": None, "user_data": {**_BASE["user_data"], "type": ["string", "null"]}}),
    (63, {"trusted_image_certificates": {"type": ["array", "null"], "maxItems": 50, "items": _TEXT}}),
    (90, {"hostname": _HOSTNAME}),
    (94, {"hostname": _FQDN}),
]
_EVACUATE_STEPS: list[tuple[int, dict[str, Any]]] = [
    (1, {"host": _TEXT, "adminPass": {"type": "string", "maxLength": 255}, "onSharedStorage": BOOLEAN}),
    (14, {"onSharedStorage": None}),
    (29, {"force": BOOLEAN}),
    (68, {"force": None}),
]
_UNSHELVE_STEPS: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (77, {"availability_zone": _TEXT}),
    (91, {"availability_zone": {"anyOf": [_TEXT, {"type": "null"}]}, "host": _TEXT}),
]


def _argument_validators(
    base: dict[str, Any], steps: list[tuple[int, dict[str, Any]]], required: list[str], *, nullable: bool = False
) -> list[tuple[int, jsonschema.protocols.Validator]]:
    made: list[tuple[int, jsonschema.protocols.Validator]] = []
    properties = base
    for minor, change in steps:
        properties = _applied(properties, change)
        needed = [key for key in required if key in properties]
        kinds = ["object", "null"] if nullable else "object"
        schema = {"type": kinds, "properties": properties, "required": needed, "additionalProperties": False}
        made.append((minor, validator(schema)))
    return made


_LOCK = [
    (1, validator({})),
    (
        73,
        validator(
            {
                "type": ["object", "null"],
                "properties": {"locked_reason": _TEXT},
                "additionalProperties": False,
            }
        ),
    ),
]


def lock(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of the argument of ``lock`` at microversion ``2.minor``."""
    return [schema for since, schema in _LOCK if since <= minor][-1]


_REBUILDS = _argument_validators(_REBUILD, _REBUILD_STEPS, ["imageRef"])
_EVACUATIONS = _argument_validators({}, _EVACUATE_STEPS, ["onSharedStorage"])
RESIZE = validator(
    {
        "type": "object",
        "properties": {
            "flavorRef": {"type": ["string", "integer"], "minLength": 1},
            "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]},
        },
        "required": ["flavorRef"],
        "additionalProperties": False,
    }
)
_MIGRATE_STEPS: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (56, {"host": {"anyOf": [_TEXT, {"type": "null"}]}}),
]
_LIVE_MIGRATE_STEPS: list[tuple[int, dict[str, Any]]] = [
    (1, {"host": {"anyOf": [_TEXT, {"type": "null"}]}, "block_migration": BOOLEAN, "disk_over_commit": BOOLEAN}),
    (25, {"block_migration": {"anyOf": [BOOLEAN, {"const": "auto"}]}, "disk_over_commit": None}),
    (30, {"force": BOOLEAN}),
    (68, {"force": None}),
]
_LIVE_MIGRATIONS = _argument_validators({}, _LIVE_MIGRATE_STEPS, ["host", "block_migration", "disk_over_commit"])
_MIGRATIONS = _argument_validators({}, _MIGRATE_STEPS, [], nullable=True)
_UNSHELVES = _argument_validators({}, _UNSHELVE_STEPS, [], nullable=True)


def rebuild(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of the argument of ``rebuild`` at microversion ``2.minor``."""
    return [schema for since, schema in _REBUILDS if since <= minor][-1]


def evacuate(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of the argument of ``evacuate`` at microversion ``2.minor``."""
    return [schema for since, schema in _EVACUATIONS if since <= minor][-1]


def unshelve(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of the argument of ``unshelve`` at microversion ``2.minor``."""
    return [schema for since, schema in _UNSHELVES if since <= minor][-1]


def migrate(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of the argument of ``migrate`` at microversion ``2.minor``."""
    return [schema for since, schema in _MIGRATIONS if since <= minor][-1]


def live_migrate(minor: int) -> jsonschema.protocols.Validator:
    """Return the validator of the argument of ``os-migrateLive`` at microversion ``2.minor``."""
    return [schema for since, schema in _LIVE_MIGRATIONS if since <= minor][-1]
