# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-keypairs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon
import jsonschema
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.compute import key_pairs as domain
from accelsched.compute import keys, quotas
from accelsched.db.compute import KeyPair, as_iso
from accelsched.policies.key_pairs import KEY_PAIRS

if TYPE_CHECKING:
    from accelsched.api.services import Services

_TEXT = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\x00-\x1f]+$"}
_PUBLIC_KEY = {"type": "string", "maxLength": 16384}
_NAME = {"type": "string", "minLength": 1, "maxLength": 255}


def _steps() -> list[tuple[int, jsonschema.protocols.Validator]]:
    """Return the schema of ``POST`` for each microversion that changed it."""
    properties: dict[str, Any] = {
        "name": {**_NAME, "pattern": r"^[a-zA-Z0-9_-]([ a-zA-Z0-9_-]*[a-zA-Z0-9_-])?$"},
        "public_key": _PUBLIC_KEY,
    }
    made = [(1, _schema(properties, ["name"]))]
    for since, change in (
        (2, {"type": {"enum": [keys.SSH, keys.X509]}}),
        (10, {"user_id": _TEXT}),
        (92, {"name": {**_NAME, "pattern": r"^[a-zA-Z0-9@._-]([ a-zA-Z0-9@._-]*[a-zA-Z0-9@._-])?$"}}),
    ):
        properties = {**properties, **change}
        made.append((since, _schema(properties, ["name", "public_key"] if since >= 92 else ["name"])))
    return made


def _schema(properties: dict[str, Any], required: list[str]) -> jsonschema.protocols.Validator:
    pair = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return resources.validator(
        {"type": "object", "properties": {"keypair": pair}, "required": ["keypair"], "additionalProperties": False}
    )


_CREATE = _steps()


class KeyPairs:
    """``/os-keypairs`` and ``/os-keypairs/{name}``: of the caller, or from 2.10 of whom an operator names."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List key pairs."""
        minor = microversion.version_of(req).minor
        params = queries.parameters(req)
        if minor >= 75:
            queries.check_known(params, "user_id", "limit", "marker")
        user_id = self._owner(req, "index", queries.last(params, "user_id"))
        limit = queries.limit(params, self._services.conf.api.max_limit) if minor >= 35 else None
        marker = queries.last(params, "marker") if minor >= 35 else None
        with self._services.db.reading() as session:
            found = domain.list_page(session, user_id, marker=marker, limit=limit)
        listed: dict[str, Any] = {"keypairs": [{"keypair": _brief(pair, minor)} for pair in found]}
        if limit and len(found) == limit:
            listed["keypairs_links"] = [queries.next_link(req, "/os-keypairs", found[-1].name)]
        resp.media = listed

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Import a key, or before 2.92 make one."""
        minor = microversion.version_of(req).minor
        schema = [schema for since, schema in _CREATE if since <= minor][-1]
        wanted = resources.body_of(req, schema)["keypair"]
        user_id = self._owner(req, "create", wanted.get("user_id"))
        type_ = wanted.get("type", keys.SSH)
        public_key, private_key = wanted.get("public_key"), None
        if public_key is None:
            public_key, private_key = keys.generate(type_, user_id)
        elif not public_key:
            raise errors.InvalidError("Keypair data is invalid: failed to generate fingerprint")
        project_id = resources.context_of(req).project_id or ""
        defaults = quotas.defaults(self._services.conf)

        def write(session: Session) -> KeyPair:
            quotas.admit_key_pair(session, user_id, project_id, defaults)
            return domain.create(session, user_id=user_id, name=wanted["name"], type_=type_, public_key=public_key)

        pair = self._services.db.transact(write)
        view = {**_brief(pair, minor), "user_id": user_id}
        resp.status = falcon.HTTP_201 if minor >= 2 else falcon.HTTP_200
        resp.media = {"keypair": view if private_key is None else {**view, "private_key": private_key}}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show a key pair."""
        minor = microversion.version_of(req).minor
        user_id = self._owner(req, "show", _user(req))
        with self._services.db.reading() as session:
            pair = domain.get(session, user_id, name)
        resp.media = {
            "keypair": {
                **_brief(pair, minor),
                "id": pair.id,
                "user_id": pair.user_id,
                "created_at": as_iso(pair.created_at),
                "updated_at": None,
                "deleted": False,
                "deleted_at": None,
            }
        }

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Delete a key pair."""
        user_id = self._owner(req, "delete", _user(req))
        self._services.db.transact(lambda session: domain.remove(session, user_id, name))
        resp.status = falcon.HTTP_204 if microversion.version_of(req).minor >= 2 else falcon.HTTP_202

    def _owner(self, req: falcon.Request, rule: str, asked: str | None) -> str:
        """Return whose key pairs are meant, if the caller may have them."""
        context = resources.context_of(req)
        named = asked if microversion.version_of(req).minor >= 10 else None
        user_id: str = named or context.user_id or ""
        policies.require(self._services.enforcer, context, KEY_PAIRS + rule, {"user_id": user_id})
        return user_id


def _user(req: falcon.Request) -> str | None:
    params = queries.parameters(req)
    if microversion.version_of(req).minor >= 75:
        queries.check_known(params, "user_id")
    return queries.last(params, "user_id")


def _brief(pair: KeyPair, minor: int) -> dict[str, Any]:
    view = {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint}
    return {**view, "type": pair.type} if minor >= 2 else view
