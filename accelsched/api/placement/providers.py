# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/resource_providers``."""

from __future__ import annotations

import functools
import uuid as uuidlib
from typing import Any

import falcon
from sqlalchemy.orm import Session

from accelsched.api.placement import handler, microversion, query
from accelsched.api.placement.fragments import Fragments
from accelsched.api.placement.handler import body_validator, minor_of, query_validator, serves
from accelsched.api.services import Services
from accelsched.placement import providers, search
from accelsched.placement.picture import NONE, Picture, moment
from accelsched.placement.providers import Provider
from accelsched.placement.search import ProviderFilter
from accelsched.policies import placement as rules

# From which minor version on:
_TREES = 14
_BODY_ON_CREATE = 20
_REPARENTING = 37
_LINKS = {0: ["inventories", "usages"], 1: ["aggregates"], 6: ["traits"], 11: ["allocations"]}

_NAME = {"type": "string", "maxLength": providers.NAME_MAX, "pattern": handler.TEXT_PATTERN}
_UUID = {"type": "string", "format": "uuid"}
_PARENT = {"anyOf": [_UUID, {"type": "null"}]}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_POST = {
    0: body_validator(_object({"name": _NAME, "uuid": _UUID}, ["name"])),
    _TREES: body_validator(_object({"name": _NAME, "uuid": _UUID, "parent_provider_uuid": _PARENT}, ["name"])),
}
_PUT = {
    0: body_validator(_object({"name": _NAME}, ["name"])),
    _TREES: body_validator(_object({"name": _NAME, "parent_provider_uuid": _PARENT}, ["name"])),
}
_ANY = {"type": "string"}
_GET_SINCE = {
    0: {"name": _ANY, "uuid": _UUID},
    3: {"member_of": _ANY},
    4: {"resources": _ANY},
    _TREES: {"in_tree": _UUID},
    18: {"required": _ANY},
}
_GET = {
    since: query_validator(
        _object({name: schema for at, some in _GET_SINCE.items() if at <= since for name, schema in some.items()}, [])
    )
    for since in _GET_SINCE
}


class Providers(handler.Resource):
    """``/resource_providers``."""

    def __init__(self, services: Services) -> None:
        """Keep what was rendered, in each form that is asked for."""
        super().__init__(services)
        self._forms: dict[tuple[str, int], Fragments] = {}

    @serves(rules.PROVIDERS + "list", gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List providers."""
        minor = minor_of(req)
        asked = query.Query.of(req)
        asked.check(microversion.pick(_GET, minor))
        member_of, forbidden_aggregates = query.parse_member_of(asked.all("member_of"), minor)
        required, forbidden = query.parse_required(asked.all("required"), minor)
        resources = asked.last("resources")
        wanted = ProviderFilter(
            name=asked.last("name"),
            uuid=asked.last("uuid"),
            in_tree=asked.last("in_tree"),
            resources={} if resources is None else query.parse_resources(resources),
            required=required,
            forbidden=forbidden,
            member_of=member_of,
            forbidden_aggregates=forbidden_aggregates,
        )
        search.check_names(
            self.services.db, classes=wanted.resources, traits=frozenset().union(wanted.forbidden, *wanted.required)
        )
        with self.services.fleet.reading() as picture:
            found = search.find(picture, wanted)
            form = (req.root_path, max(since for since in (*_LINKS, _TREES) if since <= minor))
            if form not in self._forms:
                self._forms[form] = Fragments(functools.partial(_rendered, *form))
            shown = self._forms[form].of(picture, found.tolist())
            modified = moment(int(picture.updated_us[found].max())) if len(found) else None
        handler.send(req, resp, {"resource_providers": shown}, modified=modified)

    @serves(rules.PROVIDERS + "create", takes_json=True)
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a provider."""
        minor = minor_of(req)
        body = handler.body_of(req, microversion.pick(_POST, minor))
        uuid = handler.canonical_uuid(body["uuid"]) if "uuid" in body else str(uuidlib.uuid4())
        creation = providers.Creation(uuid, body["name"], body.get("parent_provider_uuid"))
        provider: Provider = self.services.changes.write(creation)
        location = f"/resource_providers/{uuid}"
        if minor >= _BODY_ON_CREATE:
            handler.send(req, resp, render(req, provider), modified=provider.updated_at, location=location)
        else:
            handler.send(req, resp, status=201, location=location, cached=False)


class OneProvider(handler.Resource):
    """``/resource_providers/{uuid}``."""

    @serves(rules.PROVIDERS + "show", gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show a provider."""
        with self.services.db.reading() as session:
            provider = providers.get(session, uuid)
        handler.send(req, resp, render(req, provider), modified=provider.updated_at)

    @serves(rules.PROVIDERS + "update", takes_json=True)
    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Rename a provider, or move it."""
        minor = minor_of(req)
        body = handler.body_of(req, microversion.pick(_PUT, minor), first=lambda: self.check_provider(uuid))

        def write(session: Session) -> Provider:
            if "parent_provider_uuid" in body:
                providers.set_parent(session, uuid, body["parent_provider_uuid"], may_leave=minor >= _REPARENTING)
            return providers.rename(session, uuid, body["name"])

        provider = self.services.db.transact(write)
        handler.send(req, resp, render(req, provider), modified=provider.updated_at)

    @serves(rules.PROVIDERS + "delete")
    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Delete a provider."""
        self.services.db.transact(lambda session: providers.remove(session, uuid))
        handler.send(req, resp, status=204, cached=False)


def render(req: falcon.Request, provider: Provider) -> dict[str, Any]:
    """Return a provider as the request's version shows it."""
    return _shown(
        req.root_path,
        minor_of(req),
        uuid=provider.uuid,
        name=provider.name,
        generation=provider.generation,
        parent_uuid=provider.parent_uuid,
        root_uuid=provider.root_uuid,
    )


def _rendered(root_path: str, minor: int, picture: Picture, slot: int) -> dict[str, Any]:
    parent = int(picture.parent[slot])
    return _shown(
        root_path,
        minor,
        uuid=picture.uuid[slot],
        name=picture.name[slot],
        generation=int(picture.generation[slot]),
        parent_uuid=None if parent == NONE else picture.uuid[parent],
        root_uuid=picture.uuid[int(picture.root[slot])],
    )


def _shown(
    root_path: str, minor: int, *, uuid: str, name: str, generation: int, parent_uuid: str | None, root_uuid: str
) -> dict[str, Any]:
    base = f"{root_path}/resource_providers/{uuid}"
    rels = [rel for since, some in _LINKS.items() if since <= minor for rel in some]
    shown: dict[str, Any] = {
        "uuid": uuid,
        "name": name,
        "generation": generation,
        "links": [{"rel": "self", "href": base}, *({"rel": rel, "href": f"{base}/{rel}"} for rel in rels)],
    }
    if minor >= _TREES:
        shown["parent_provider_uuid"] = parent_uuid
        shown["root_provider_uuid"] = root_uuid
    return shown
