# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/servers``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import falcon
from sqlalchemy.orm import Session

from accelsched import errors, policies, rpc
from accelsched.api import resources
from accelsched.api.compute import microversion, passwords, server_create, server_filters
from accelsched.api.compute import server_schemas as schemas
from accelsched.api.compute import server_views as views
from accelsched.compute import images, quotas, server_groups
from accelsched.compute import servers as domain
from accelsched.context import RequestContext
from accelsched.db import instance_actions
from accelsched.db.engine import CommitLostError
from accelsched.failpoints import Point, reach
from accelsched.policies import flavors as flavor_rules
from accelsched.policies import servers as rules

if TYPE_CHECKING:
    from accelsched.api.services import Services

LOG = logging.getLogger(__name__)

_DISK_CONFIG = "OS-DCF:diskConfig"
# Columns of the keys of PUT that go by another name.
_COLUMNS = {"accessIPv4": "access_ip_v4", "accessIPv6": "access_ip_v6"}


class ServerResource:
    """What the resources of servers share."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def _scope(self, context: RequestContext, rule: str) -> str | None:
        return policies.scope(self._services.enforcer, context, rule)

    def _reader(self, req: falcon.Request) -> views.Reader:
        context, enforcer = resources.context_of(req), self._services.enforcer
        return views.Reader(
            prefix=req.prefix,
            version=microversion.version_of(req),
            extended=policies.allowed(enforcer, context, "os_compute_api:os-extended-server-attributes"),
            host_status=policies.allowed(enforcer, context, rules.SERVERS + "show:host_status"),
            extra_specs=policies.allowed(enforcer, context, flavor_rules.SPECS + "index"),
            service_down_s=self._services.conf.scheduler.service_down_time,
            default_zone=self._services.conf.default_availability_zone,
        )

    def _is_admin(self, req: falcon.Request) -> bool:
        return policies.allowed(self._services.enforcer, resources.context_of(req), "context_is_admin")

    def _get(self, uuid: str, project_id: str | None) -> domain.Shown:
        with self._services.db.reading() as session:
            return domain.get(session, uuid, project_id=project_id)

    def _with_groups(self, uuid: str, project_id: str | None) -> tuple[domain.Shown, Sequence[str]]:
        with self._services.db.reading() as session:
            return domain.get(session, uuid, project_id=project_id), server_groups.of_server(session, uuid)


def hint(what: str, cast: Callable[[], None]) -> None:
    """Send a message that only makes something happen sooner; losing it is harmless."""
    try:
        cast()
    except rpc.MESSAGING_ERRORS as exc:
        LOG.warning("%s: the message could not be sent, it will be seen at the next poll: %s", what, exc)


class Servers(ServerResource):
    """``/servers`` and ``/servers/detail``."""

    def __init__(self, services: Services, image_service: images.Images) -> None:
        super().__init__(services)
        self._images = image_service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List servers by id and name."""
        reader = self._reader(req)
        resp.media = self._list(req, "index", "/servers", lambda shown: views.brief(shown, reader))

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List servers in full."""
        reader = self._reader(req)
        resp.media = self._list(req, "detail", "/servers/detail", lambda shown: views.full(shown, reader))

    def _list(
        self, req: falcon.Request, rule: str, path: str, view: Callable[[domain.Shown], dict[str, Any]]
    ) -> dict[str, Any]:
        context, enforcer = resources.context_of(req), self._services.enforcer
        policies.require(enforcer, context, rules.SERVERS + rule)
        filters = server_filters.read(
            req,
            all_filters=policies.allowed(enforcer, context, rules.SERVERS + "allow_all_filters"),
            most=self._services.conf.api.max_limit,
            on_sqlite=self._services.db.is_sqlite,
            default_zone=self._services.conf.default_availability_zone,
        )
        if filters.all_tenants:
            policies.require(enforcer, context, f"{rules.SERVERS}{rule}:get_all_tenants")
        query = filters.query(context.project_id or "")
        with self._services.db.reading() as session:
            found = server_filters.run(session, query)
        listed: dict[str, Any] = {"servers": [view(shown) for shown in found]}
        if found and len(found) == query.limit:
            listed["servers_links"] = [server_filters.next_link(req, path, found[-1].server.uuid)]
        return listed

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create one server or many."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, rules.SERVERS + "create")
        version = microversion.version_of(req)
        body = resources.body_of(req, schemas.create(version.minor))
        new = server_create.read(
            body, context=context, version=version, services=self._services, image_service=self._images
        )
        defaults = quotas.defaults(self._services.conf)

        def write(session: Session) -> domain.Created:
            created = domain.create(session, quotas.admit_servers(session, new, defaults))
            reach(Point.API_SERVERS_WRITTEN)
            return created

        try:
            created = self._services.db.transact(write)
        except CommitLostError as exc:
            made = cast("domain.Created", exc.result)
            raise errors.UnavailableError(
                "The database went away just now, and whether the servers were made is not known. If they were, GET "
                f"/servers?reservation_id={made.reservation_id} lists them; if not, ask again."
            ) from exc
        reach(Point.API_SERVERS_COMMITTED)
        hint("place", self._services.scheduler.place)
        resp.status = falcon.HTTP_202
        if server_create.wants_reservation(body):
            resp.media = {"reservation_id": created.reservation_id}
            return
        uuid = created.uuids[0]
        links = views.links(req.prefix, uuid)
        resp.location = links[0]["href"]
        resp.media = {
            "server": {
                "id": uuid,
                "links": links,
                _DISK_CONFIG: body["server"].get(_DISK_CONFIG, "MANUAL"),
                "security_groups": [{"name": "default"}],
                **passwords.shown(new.admin_pass, self._services.conf),
            }
        }


class Server(ServerResource):
    """``/servers/{id}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show a server."""
        scope = self._scope(resources.context_of(req), rules.SERVERS + "show")
        shown, groups = self._with_groups(uuid, scope)
        resp.media = {"server": views.full(shown, self._reader(req), groups=groups)}

    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Change what a server is called and said to be."""
        scope = self._scope(resources.context_of(req), rules.SERVERS + "update")
        version = microversion.version_of(req)
        wanted = resources.body_of(req, schemas.update(version.minor))["server"]
        changes = {_COLUMNS.get(key, key): value or None for key, value in wanted.items() if key != _DISK_CONFIG}
        if _DISK_CONFIG in wanted:
            changes["auto_disk_config"] = wanted[_DISK_CONFIG] == "AUTO"
        self._services.db.transact(lambda session: domain.describe(session, uuid, changes, project_id=scope))
        shown, groups = self._with_groups(uuid, scope)
        resp.media = {"server": views.changed(shown, self._reader(req), groups=groups)}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Delete a server."""
        context = resources.context_of(req)
        delete(self._services, uuid, context, self._scope(context, rules.SERVERS + "delete"))
        resp.status = falcon.HTTP_204


def delete(services: Services, uuid: str, context: RequestContext, project_id: str | None) -> None:
    """Want a server no longer, and tell its agent."""
    origin = instance_actions.Origin.of(context)
    admin = policies.allowed(services.enforcer, context, "context_is_admin")
    told = services.db.transact(
        lambda session: domain.delete(session, uuid, origin, project_id=project_id, admin=admin)
    )
    reach(Point.API_DELETION_COMMITTED)
    if told is not None:
        agent, host = told
        hint("sync", lambda: services.agents.sync(agent, [host]))
