# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-aggregates``."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion
from accelsched.compute import aggregates as domain
from accelsched.policies.aggregates import AGGREGATES

if TYPE_CHECKING:
    from accelsched.api.services import Services

_NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\s\x00-\x1f](.*[^\s\x00-\x1f])?$"}
# A colon would make ZONE:HOST:NODE mean something else.
_ZONE = {**_NAME, "pattern": r"^[^\s\x00-\x1f:]([^\x00-\x1f:]*[^\s\x00-\x1f:])?$"}
_HOST = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\x00-\x1f]+$"}


def _wrapped(key: str, properties: dict[str, Any], required: list[str], **rules: Any) -> dict[str, Any]:
    inner = {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **rules}
    return {"type": "object", "properties": {key: inner}, "required": [key], "additionalProperties": False}


_CREATE = resources.validator(
    _wrapped("aggregate", {"name": _NAME, "availability_zone": {"anyOf": [_ZONE, {"type": "null"}]}}, ["name"])
)
_UPDATE = resources.validator(_wrapped("aggregate", {"name": _NAME, "availability_zone": _ZONE}, [], minProperties=1))
_METADATA = {
    "type": "object",
    "patternProperties": {"^[a-zA-Z0-9_:. =-]{1,255}$": {"type": ["string", "null"], "maxLength": 255}},
    "properties": {"availability_zone": {"anyOf": [_ZONE, {"type": "null"}]}},
    "additionalProperties": False,
    "maxProperties": 256,
}
_ACTION = resources.validator(
    {
        "type": "object",
        "properties": {
            "add_host": {**_wrapped("host", {}, []), "properties": {"host": _HOST}},
            "remove_host": {**_wrapped("host", {}, []), "properties": {"host": _HOST}},
            "set_metadata": {**_wrapped("metadata", {}, []), "properties": {"metadata": _METADATA}},
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
)


class Aggregates:
    """``/os-aggregates`` and what is below it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List aggregates."""
        self._require(req, "index")
        with self._services.db.reading() as session:
            found = domain.list_all(session)
        resp.media = {"aggregates": [_view(shown, req) for shown in found]}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create an aggregate."""
        self._require(req, "create")
        wanted = resources.body_of(req, _CREATE)["aggregate"]
        view = self._write(
            req, lambda session: domain.create(session, wanted["name"], wanted.get("availability_zone"))
        )["aggregate"]
        # Nova's answer to this one call leaves out what is known to be empty.
        resp.media = {"aggregate": {key: view[key] for key in view if key not in ("hosts", "metadata")}}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show an aggregate."""
        self._require(req, "show")
        number = _number(id_)
        with self._services.db.reading() as session:
            resp.media = {"aggregate": _view(domain.get(session, number), req)}

    def on_put_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Rename an aggregate or change its zone."""
        self._require(req, "update")
        wanted, number = resources.body_of(req, _UPDATE)["aggregate"], _number(id_)
        name, zone = wanted.get("name"), wanted.get("availability_zone")
        resp.media = self._write(req, lambda session: domain.update(session, number, name=name, zone=zone))

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Delete an aggregate."""
        self._require(req, "delete")
        number = _number(id_)
        self._services.db.transact(lambda session: domain.remove(session, number))

    def on_post_action(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Add or remove a host, or set metadata."""
        ((action, wanted),) = resources.body_of(req, _ACTION).items()
        self._require(req, action)
        number = _number(id_)

        def write(session: Session) -> domain.Shown:
            match action:
                case "add_host":
                    return domain.add_host(session, number, wanted["host"])
                case "remove_host":
                    return domain.remove_host(session, number, wanted["host"])
                case _:
                    return domain.set_metadata(session, number, wanted["metadata"])

        resp.media = self._write(req, write)

    def on_post_images(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Say that hosts fetch images when they need them, not before (2.81)."""
        microversion.need(req, 81)
        policies.require(self._services.enforcer, resources.context_of(req), "compute:aggregates:images", {})
        with self._services.db.reading() as session:
            domain.get(session, _number(id_))
        raise falcon.HTTPNotImplemented(description="Images are not fetched before they are needed in this release.")

    def _require(self, req: falcon.Request, rule: str) -> None:
        policies.require(self._services.enforcer, resources.context_of(req), AGGREGATES + rule, {})

    def _write(self, req: falcon.Request, write: Callable[[Session], domain.Shown]) -> dict[str, Any]:
        return {"aggregate": _view(self._services.db.transact(write), req)}


def _number(id_: str) -> int:
    """Return the number that an aggregate goes by; one that none can have is as good as any that none has.

    :raises accelsched.errors.InvalidError: when it is no number
    """
    if re.fullmatch(r"-?[0-9]{1,50}", id_, re.ASCII) is None:
        raise errors.InvalidError(f"id must be an integer, not {id_[:50]!r}")
    number = int(id_)
    return number if 0 <= number < 2**31 else -1


def _view(shown: domain.Shown, req: falcon.Request) -> dict[str, Any]:
    aggregate = shown.aggregate
    view: dict[str, Any] = {
        "availability_zone": aggregate.metadata_.get("availability_zone"),
        "created_at": _moment(aggregate.created_at),
        "deleted": False,
        "deleted_at": None,
        "hosts": list(shown.hosts),
        "id": aggregate.id,
        "metadata": dict(aggregate.metadata_),
        "name": aggregate.name,
        "updated_at": _moment(aggregate.updated_at),
    }
    return view | {"uuid": aggregate.uuid} if microversion.version_of(req).minor >= 41 else view


def _moment(when: datetime.datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="microseconds")
