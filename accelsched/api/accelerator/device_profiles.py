# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v2/device_profiles``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import falcon

from accelsched import errors, policies
from accelsched.accelerator import profiles
from accelsched.api import resources
from accelsched.api.accelerator import microversion
from accelsched.db.compute import as_iso

if TYPE_CHECKING:
    from accelsched.api.services import Services
    from accelsched.db.accelerator import DeviceProfile

_RULE = "cyborg:device_profile:"
_NAMES_SINCE = 2  # one is shown by its name, too

_AMOUNT = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,10}$"}]}
_CREATE = resources.validator(
    {
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,255}$"},
                "description": {"type": ["string", "null"], "maxLength": 1000},
                "groups": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 32,
                    "items": {
                        "type": "object",
                        "minProperties": 1,
                        "maxProperties": 64,
                        "patternProperties": {
                            "^resources:[A-Z0-9_]{1,255}$": _AMOUNT,
                            "^trait:[A-Z0-9_]{1,255}$": {"enum": ["required", "forbidden"]},
                            "^accel:(bitstream_id|function_id)$": {"type": "string", "maxLength": 36},
                        },
                        "additionalProperties": False,
                    },
                },
            },
            "required": ["name", "groups"],
            "additionalProperties": False,
        },
    }
)


class Profiles:
    """All of them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them, of some names where the query says so."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "get_all")
        names = req.get_param("name")
        with self._services.db.reading() as session:
            found = profiles.list_(session, None if names is None else names.split(","))
        resp.media = {"device_profiles": [_view(one, req) for one in found]}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one; the body is a list of it, as Cyborg has it."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "create")
        (wanted,) = cast("list[dict[str, Any]]", resources.body_of(req, _CREATE))
        made = self._services.db.transact(
            lambda session: profiles.create(
                session,
                name=wanted["name"],
                description=wanted.get("description"),
                groups=[{key: str(value) for key, value in group.items()} for group in wanted["groups"]],
            )
        )
        resp.status = falcon.HTTP_201
        resp.media = _view(made, req)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Delete those of the names in ``value``."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "delete")
        names = req.get_param("value")
        if not names:
            raise errors.InvalidError("value: names of device profiles are missing")

        def remove(session: Any) -> None:
            for name in names.split(","):
                profiles.remove(session, name)

        self._services.db.transact(remove)
        resp.status = falcon.HTTP_204


class Profile:
    """One."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, name_or_uuid: str) -> None:
        """Show it."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "get_one")
        with self._services.db.reading() as session:
            found = profiles.get(session, name_or_uuid)
        if found.uuid != name_or_uuid and microversion.minor_of(req) < _NAMES_SINCE:
            raise falcon.HTTPNotAcceptable(description=f"Names are understood from version 2.{_NAMES_SINCE} on.")
        resp.media = {"device_profile": _view(found, req)}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name_or_uuid: str) -> None:
        """Delete it; servers that were made with it keep what it said."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "delete")
        self._services.db.transact(lambda session: profiles.remove(session, name_or_uuid))
        resp.status = falcon.HTTP_204


def _view(profile: DeviceProfile, req: falcon.Request) -> dict[str, Any]:
    return {
        "uuid": profile.uuid,
        "name": profile.name,
        "description": profile.description,
        "groups": profile.groups,
        "created_at": as_iso(profile.created_at),
        "updated_at": None,
        "links": [{"rel": "self", "href": f"{req.prefix}/v2/device_profiles/{profile.uuid}"}],
    }
