# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/traits`` and ``/resource_providers/{uuid}/traits``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.api.placement import handler, query
from accelsched.api.placement.handler import body_validator, query_validator, serves
from accelsched.placement import providers, traits
from accelsched.placement.traits import NamedTrait
from accelsched.policies import placement as rules

_SINCE = 6
_NAME_MAX = 255

_SET = body_validator(
    {
        "type": "object",
        "properties": {
            "traits": {
                "type": "array",
                "maxItems": handler.MANY,
                "items": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": _NAME_MAX,
                    "pattern": handler.TEXT_PATTERN,
                },
            },
            "resource_provider_generation": {"type": "integer"},
        },
        "required": ["traits", "resource_provider_generation"],
        "additionalProperties": False,
    }
)
_LIST = query_validator(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "associated": {"type": "string"}},
        "additionalProperties": False,
    }
)


class Traits(handler.Resource):
    """``/traits``."""

    @serves(rules.TRAITS + "list", since=_SINCE, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List traits."""
        asked = query.Query.of(req)
        asked.check(_LIST)
        wanted: dict[str, Any] = {}
        name = asked.last("name")
        if name is not None:
            operator, colon, value = name.partition(":")
            if not colon:
                raise errors.InvalidError(
                    "Badly formatted name parameter. Expected name query string parameter in form: "
                    f"?name=[in|startswith]:[name1,name2|prefix]. Got: {name[:100]}"
                )
            if operator == "in":
                wanted["names"] = value.split(",")
            elif operator == "startswith":
                wanted["prefix"] = value
        associated = asked.last("associated")
        if associated is not None:
            if associated.lower() not in ("true", "false"):
                raise errors.InvalidError('The query parameter "associated" only accepts "true" or "false"')
            wanted["associated"] = associated.lower() == "true"
        with self.services.db.reading() as session:
            found = traits.find(session, **wanted)
        handler.send(req, resp, _render(found), modified=_newest(found))


class OneTrait(handler.Resource):
    """``/traits/{name}``."""

    @serves(rules.TRAITS + "show", since=_SINCE)
    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Tell whether a trait exists."""
        with self.services.db.reading() as session:
            trait = traits.get(session, name)
        handler.send(req, resp, status=204, modified=trait.updated_at)

    @serves(rules.TRAITS + "update", since=_SINCE)
    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Create a custom trait, if it is not there yet."""
        if len(name) > _NAME_MAX or not re.match(handler.CUSTOM_PATTERN, name):
            raise errors.InvalidError(
                "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix "
                '"CUSTOM_" and use following characters: "A"-"Z", "0"-"9" and "_"'
            )

        def write(session: Session) -> tuple[bool, NamedTrait]:
            return traits.ensure(session, name), traits.get(session, name)

        is_new, trait = self.services.db.transact(write)
        handler.send(req, resp, status=201 if is_new else 204, modified=trait.updated_at, location=f"/traits/{name}")

    @serves(rules.TRAITS + "delete", since=_SINCE)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Delete a custom trait."""
        self.services.db.transact(lambda session: traits.remove(session, name))
        handler.send(req, resp, status=204, cached=False)


class ProviderTraits(handler.Resource):
    """``/resource_providers/{uuid}/traits``."""

    @serves(rules.PROVIDER_TRAITS + "list", since=_SINCE, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List a provider's traits."""
        with self.services.db.snapshot() as session:
            provider = providers.get(session, uuid)
            found = traits.of_provider(session, provider.id)
        shown = {**_render(found), "resource_provider_generation": provider.generation}
        handler.send(req, resp, shown, modified=_newest(found))

    @serves(rules.PROVIDER_TRAITS + "update", since=_SINCE, takes_json=True)
    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Give a provider just these traits."""
        body = handler.body_of(req, _SET)
        replacement = traits.Replacement(uuid, body["traits"], body["resource_provider_generation"])
        provider, found = self.services.changes.write(replacement)
        shown = {**_render(found), "resource_provider_generation": provider.generation}
        handler.send(req, resp, shown, modified=_newest(found))

    @serves(rules.PROVIDER_TRAITS + "delete", since=_SINCE)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Take every trait from a provider."""
        self.services.changes.write(traits.Replacement(uuid, []))
        handler.send(req, resp, status=204, cached=False)


def _render(found: Sequence[NamedTrait]) -> dict[str, Any]:
    return {"traits": [trait.name for trait in found]}


def _newest(found: Sequence[NamedTrait]) -> Any:
    return max((trait.updated_at for trait in found), default=None)
