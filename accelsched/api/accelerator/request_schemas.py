# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is asked of accelerator requests: to be made, and Cyborg's JSON patches that bind and unbind them."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import falcon

from accelsched import errors
from accelsched.accelerator.own_requests import Binding
from accelsched.api import resources

_PROJECT_SINCE = 1  # minor version
_MOST = 64  # at once
_ID = {"type": "string", "format": "uuid"}
_NUMBER = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,4}$"}]}

CREATE = resources.validator(
    {
        "type": "object",
        "properties": {
            "device_profile_name": {"type": "string", "minLength": 1, "maxLength": 255},
            "device_profile_group_id": {"anyOf": [*_NUMBER["anyOf"], {"type": "null"}]},
            "image_uuid": {"anyOf": [_ID, {"type": "null"}]},
        },
        "required": ["device_profile_name"],
        "additionalProperties": False,
    }
)

_FIELDS = ("hostname", "device_rp_uuid", "instance_uuid")
_PATCH = resources.validator(
    {
        "type": "object",
        "minProperties": 1,
        "maxProperties": _MOST,
        "propertyNames": _ID,
        "additionalProperties": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "maxLength": 255},
                    "op": {"type": "string", "enum": ["add", "remove"]},
                    "value": {"type": ["string", "null"], "maxLength": 255},
                },
                "required": ["path", "op"],
                "additionalProperties": False,
            },
        },
    }
)


@dataclass(frozen=True)
class Change:
    """What is to become of requests.

    :ivar binding: what they are to be bound to; None when they are to be unbound
    """

    uuids: Sequence[str]
    binding: Binding | None


def change_of(req: falcon.Request, minor: int) -> Change:
    """Return what a request's body says.

    :raises accelsched.errors.InvalidError: saying what is wrong
    :raises falcon.HTTPNotAcceptable: naming a field that the version does not have
    """
    patches = {uuid_of(uuid): patch for uuid, patch in resources.body_of(req, _PATCH).items()}
    ops = {item["op"] for patch in patches.values() for item in patch}
    if len(ops) > 1:
        raise errors.InvalidError("Every op must be add, or every op must be remove")
    fields = {uuid: _fields(patch, minor) for uuid, patch in patches.items()}
    return Change(list(patches), None if ops == {"remove"} else _binding(fields))


def uuid_of(text: str) -> str:
    """Return a uuid in canonical form.

    :raises accelsched.errors.NotFoundError: it is none, so there is no such accelerator request
    """
    try:
        return str(uuids.UUID(text))
    except ValueError as exc:
        raise errors.NotFoundError(f"There is no accelerator request {text[:100]}.") from exc


def uuids_of(listed: str) -> list[str]:
    """Return the uuids of a list that commas part.

    :raises accelsched.errors.InvalidError: there are too many
    :raises accelsched.errors.NotFoundError: one is none
    """
    parts = listed.split(",")
    if len(parts) > _MOST:
        raise errors.InvalidError(f"arqs: {_MOST} at once are the most")
    return list(dict.fromkeys(map(uuid_of, parts)))


def _fields(patch: Sequence[Mapping[str, Any]], minor: int) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for item in patch:
        name = item["path"].lstrip("/")
        if name == "project_id" and minor < _PROJECT_SINCE:
            raise falcon.HTTPNotAcceptable(description=f"project_id is understood from version 2.{_PROJECT_SINCE} on.")
        if name not in (*_FIELDS, "project_id"):
            raise errors.InvalidError(f"Invalid path in patch {item['path'][:100]}")
        found[name] = item.get("value")
    return found


def _binding(fields: Mapping[str, Mapping[str, str | None]]) -> Binding:
    for of_one in fields.values():
        if absent := [name for name in _FIELDS if of_one.get(name) is None]:
            raise errors.InvalidError(f"Fields absent in patch: {', '.join(absent)}")
    targets = {(of_one["instance_uuid"], of_one["hostname"]) for of_one in fields.values()}
    projects = {of_one["project_id"] for of_one in fields.values() if of_one.get("project_id") is not None}
    if len(targets) > 1 or len(projects) > 1:
        raise errors.InvalidError("All are to be bound to one server; ask for each server by itself")
    ((server_uuid, host),) = targets
    project_id = next(iter(projects), None)
    devices = {uuid: str(of_one["device_rp_uuid"]).lower() for uuid, of_one in fields.items()}
    return Binding(str(server_uuid), str(host), devices, project_id)
