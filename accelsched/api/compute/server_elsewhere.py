# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Actions that need what is not here: a network service, an agent in the guest, servers that are deleted later.

They are answered as Nova answers them where it finds nothing: the floating IP, the group, the guest's agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import falcon
import jsonschema

from accelsched import errors
from accelsched.api import resources
from accelsched.api.resources import validator
from accelsched.compute import states
from accelsched.db.compute import Server

_TEXT = {"type": "string", "minLength": 1, "maxLength": 255}


def _object(*required: str, **optional: Any) -> jsonschema.protocols.Validator:
    properties = {**dict.fromkeys(required, _TEXT), **optional}
    return validator(
        {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    )


class _Answer(NamedTuple):
    status: int
    text: str  # of it and the arguments
    schema: jsonschema.protocols.Validator = validator({})
    until: int | None = None  # the last minor version that knows it


_GONE = "This was for agents that Nova has no more."
_ANSWERS = {
    "addFixedIp": _Answer(400, "No fixed IP addresses available for network: {networkId}", _object("networkId"), 43),
    "removeFixedIp": _Answer(400, "Instance {uuid} has no fixed IP {address}", _object("address"), 43),
    "addFloatingIp": _Answer(404, "floating IP not found", _object("address", fixed_address=_TEXT), 43),
    "removeFloatingIp": _Answer(404, "floating IP not found", _object("address"), 43),
    "addSecurityGroup": _Answer(404, "Security group {name} not found.", _object("name")),
    "removeSecurityGroup": _Answer(404, "Security group {name} not found.", _object("name")),
    "changePassword": _Answer(
        409, "Failed to set admin password on {uuid}: its guest has no QEMU agent.", _object("adminPass")
    ),
    "restore": _Answer(409, "Cannot 'restore' instance {uuid} while it is in vm_state {vm_state}"),
    "resetNetwork": _Answer(410, _GONE),
}
NAMES = frozenset(_ANSWERS)

_ERRORS = {400: errors.InvalidError, 404: errors.NotFoundError, 409: errors.ConflictError}


def refusal(action: str, arguments: Any, server: Server, minor: int) -> Exception:
    """Return why an action is not done.

    :param action: one of :data:`NAMES`
    :param minor: of the microversion
    :raises falcon.HTTPBadRequest: when the arguments are not the action's
    """
    answer = _ANSWERS[action]
    if answer.until is not None and minor > answer.until:
        return errors.NotFoundError(f"API version '2.{minor}' is not supported on this method.")
    resources.check(answer.schema, arguments)
    said: Mapping[str, Any] = arguments if isinstance(arguments, dict) else {}
    text = answer.text.format_map({**said, "uuid": server.uuid, "vm_state": states.of(server).vm_state})
    if answer.status == 410:
        return falcon.HTTPGone(description=text)
    return _ERRORS[answer.status](text)
