# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/flavors``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon
from oslo_utils import strutils

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import extra_specs, microversion, queries
from accelsched.api.compute import flavor_schemas as schemas
from accelsched.api.compute import flavor_views as views
from accelsched.compute import flavors as domain
from accelsched.context import RequestContext
from accelsched.policies import flavors as rules
from accelsched.scheduler import request as scheduler_request

if TYPE_CHECKING:
    from accelsched.api.services import Services

_SORT_KEYS: dict[str, str | None] = {
    "created_at": "created_at",
    "description": None,
    "disabled": "disabled",
    "ephemeral_gb": "ephemeral_gb",
    "flavorid": "flavorid",
    "id": "id",
    "is_public": "is_public",
    "memory_mb": "memory_mb",
    "name": "name",
    "root_gb": "root_gb",
    "rxtx_factor": "rxtx_factor",
    "swap": "swap",
    "updated_at": None,
    "vcpu_weight": None,
    "vcpus": "vcpus",
}


class _Resource:
    def __init__(self, services: Services) -> None:
        self._services = services

    def _require(self, req: falcon.Request, rule: str) -> None:
        policies.require(self._services.enforcer, resources.context_of(req), rule, {})

    def _scope(self, context: RequestContext) -> str | None:
        """Return the project that a flavor must be visible to; None for an admin, who sees all."""
        return None if self._is_admin(context) else context.project_id or ""

    def _is_admin(self, context: RequestContext) -> bool:
        return policies.allowed(self._services.enforcer, context, rules.ACCESS, {})

    def _sees_extra_specs(self, context: RequestContext) -> bool:
        return policies.allowed(self._services.enforcer, context, rules.SPECS + "index")


class Flavors(_Resource):
    """``/flavors`` and ``/flavors/detail``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List flavors by id and name."""
        version = microversion.version_of(req)
        resp.media = self._list(req, "/flavors", lambda flavor: views.brief(flavor, req.prefix, version))

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List flavors in full."""
        version = microversion.version_of(req)
        specs = self._sees_extra_specs(resources.context_of(req))
        resp.media = self._list(
            req,
            "/flavors/detail",
            lambda flavor: views.full(flavor, req.prefix, version, with_extra_specs=specs),
        )

    def _list(self, req: falcon.Request, path: str, view: Any) -> dict[str, Any]:
        context = resources.context_of(req)
        params = queries.parameters(req)
        if microversion.version_of(req).minor >= 75:
            queries.check_known(params, "limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
        limit = queries.limit(params, self._services.conf.api.max_limit)
        wanted = domain.Filter(
            is_public=self._is_public(context, queries.last(params, "is_public")),
            visible_to=self._scope(context),
            min_ram_mb=queries.number(params, "minRam") or 0,
            min_disk_gb=queries.number(params, "minDisk") or 0,
        )
        # Nova sorts flavors upwards unless told otherwise, servers downwards.
        params.setdefault("sort_dir", ["asc"])
        sort = queries.sort(params, _SORT_KEYS, [("flavorid", "asc")])
        with self._services.db.reading() as session:
            found = domain.list_page(session, wanted, sort, queries.last(params, "marker"), limit)
        listed: dict[str, Any] = {"flavors": [view(flavor) for flavor in found]}
        if found and len(found) == limit:
            listed["flavors_links"] = [queries.next_link(req, path, found[-1].flavorid)]
        return listed

    def _is_public(self, context: RequestContext, text: str | None) -> bool | None:
        if not self._is_admin(context):
            # What a project was given access to shows among the public ones.
            return None
        if text is None:
            return True
        if text.lower() == "none":
            return None
        try:
            value: bool = strutils.bool_from_string(text, strict=True)
        except ValueError as exc:
            raise errors.InvalidError(f"Invalid is_public filter [{text[:50]}]") from exc
        return value

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a flavor."""
        self._require(req, rules.MANAGE + "create")
        version = microversion.version_of(req)
        schema = schemas.CREATE_2_55 if version.minor >= 55 else schemas.CREATE
        body = resources.body_of(req, schema)["flavor"]
        flavorid = body.get("id")
        new = domain.NewFlavor(
            name=body["name"],
            flavorid=None if flavorid in (None, "auto") else str(flavorid),
            vcpus=_amount(body, "vcpus", 1),
            ram_mb=_amount(body, "ram", 1),
            disk_gb=_amount(body, "disk", 0),
            ephemeral_gb=_amount(body, "OS-FLV-EXT-DATA:ephemeral", 0),
            swap_mb=_amount(body, "swap", 0),
            rxtx_factor=float(body.get("rxtx_factor", 1.0)),
            is_public=strutils.bool_from_string(body.get("os-flavor-access:is_public", True)),
            description=body.get("description"),
        )

        flavor = self._services.db.transact(lambda session: domain.create(session, new))
        resp.media = {"flavor": views.full(flavor, req.prefix, version, with_extra_specs=True)}


def _amount(body: dict[str, Any], name: str, least: int) -> int:
    value = int(body.get(name, 0))
    if not least <= value <= 2**31 - 1:  # the schema bounds numbers, not numbers in strings
        raise errors.InvalidError(
            f"Invalid input for field/attribute flavor.{name}. Value: {value}. Must be from {least} to {2**31 - 1}"
        )
    return value


class Flavor(_Resource):
    """``/flavors/{id}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """Show a flavor."""
        context = resources.context_of(req)
        with self._services.db.reading() as session:
            flavor = domain.get(session, flavorid, visible_to=self._scope(context))
        version = microversion.version_of(req)
        specs = self._sees_extra_specs(context)
        resp.media = {"flavor": views.full(flavor, req.prefix, version, with_extra_specs=specs)}

    def on_put(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """Change a flavor's description (2.55)."""
        microversion.need(req, 55)
        self._require(req, rules.MANAGE + "update")
        body = resources.body_of(req, schemas.UPDATE_2_55)["flavor"]
        flavor = self._services.db.transact(lambda session: domain.describe(session, flavorid, body["description"]))
        version = microversion.version_of(req)
        resp.media = {"flavor": views.full(flavor, req.prefix, version, with_extra_specs=True)}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """Delete a flavor."""
        self._require(req, rules.MANAGE + "delete")
        self._services.db.transact(lambda session: domain.remove(session, flavorid))
        resp.status = falcon.HTTP_202


class ExtraSpecs(_Resource):
    """``/flavors/{id}/os-extra_specs``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """List a flavor's extra specs."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, rules.SPECS + "index")
        with self._services.db.reading() as session:
            flavor = domain.get(session, flavorid, visible_to=self._scope(context))
        resp.media = {"extra_specs": dict(flavor.extra_specs)}

    def on_post(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """Add extra specs."""
        self._require(req, rules.SPECS + "create")
        body = resources.body_of(req, schemas.EXTRA_SPECS)["extra_specs"]
        specs = _update(self._services, flavorid, body, microversion.version_of(req))
        resp.media = {"extra_specs": {key: specs[key] for key in body}}


class ExtraSpec(_Resource):
    """``/flavors/{id}/os-extra_specs/{key}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, flavorid: str, key: str) -> None:
        """Show one extra spec."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, rules.SPECS + "show")
        with self._services.db.reading() as session:
            flavor = domain.get(session, flavorid, visible_to=self._scope(context))
        if key not in flavor.extra_specs:
            raise errors.NotFoundError(f"Flavor {flavorid} has no extra specs with key {key}.")
        resp.media = {key: flavor.extra_specs[key]}

    def on_put(self, req: falcon.Request, resp: falcon.Response, flavorid: str, key: str) -> None:
        """Change or add one extra spec."""
        self._require(req, rules.SPECS + "update")
        body = resources.body_of(req, schemas.EXTRA_SPEC)
        if list(body) != [key]:
            raise errors.InvalidError("Request body and URI mismatch")
        resp.media = {key: _update(self._services, flavorid, body, microversion.version_of(req))[key]}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, flavorid: str, key: str) -> None:
        """Remove one extra spec."""
        self._require(req, rules.SPECS + "delete")
        self._services.db.transact(lambda session: domain.remove_extra_spec(session, flavorid, key))


def _update(services: Services, flavorid: str, body: dict[str, Any], version: microversion.Version) -> dict[str, str]:
    specs = {key: str(value) for key, value in body.items()}
    if version.minor >= 86:
        for key, value in specs.items():
            extra_specs.check(key, value)

    def write(session: Any) -> dict[str, str]:
        updated = domain.update_extra_specs(session, flavorid, specs)
        scheduler_request.check_extra_specs(updated)
        return updated

    return services.db.transact(write)


class Access(_Resource):
    """``/flavors/{id}/os-flavor-access`` and the actions that change it."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """List the projects that may use a private flavor."""
        self._require(req, rules.ACCESS)
        with self._services.db.reading() as session:
            if domain.get(session, flavorid).is_public:
                raise errors.NotFoundError("Access list not available for public flavors.")
            resp.media = _access(flavorid, domain.projects(session, flavorid))

    def on_post_action(self, req: falcon.Request, resp: falcon.Response, flavorid: str) -> None:
        """Let a project use a flavor, or no longer."""
        body = resources.body_of(req, schemas.ACTION)
        adding = "addTenantAccess" in body
        self._require(req, rules.ACCESS + (":add_tenant_access" if adding else ":remove_tenant_access"))
        project_id = next(iter(body.values()))["tenant"]

        def write(session: Any) -> list[str]:
            (domain.add_project if adding else domain.remove_project)(session, flavorid, project_id)
            session.flush()
            return domain.projects(session, flavorid)

        resp.media = _access(flavorid, self._services.db.transact(write))


def _access(flavorid: str, projects: list[str]) -> dict[str, Any]:
    return {"flavor_access": [{"flavor_id": flavorid, "tenant_id": project} for project in projects]}
