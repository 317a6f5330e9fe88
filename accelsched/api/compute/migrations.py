# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-migrations``: servers that moved, or are about to; ``/servers/{id}/migrations``: that run meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute import server_views as views
from accelsched.api.compute.servers import ServerResource, hint
from accelsched.compute import hosts, live_migration, moving
from accelsched.db import moves
from accelsched.db.compute import Migration
from accelsched.db.instance_actions import Origin

if TYPE_CHECKING:
    from accelsched.api.services import Services


_FILTERS = ("status", "migration_type", "host", "source_compute", "instance_uuid", "hidden")
_SINCE = ((59, ("limit", "marker", "changes-since")), (66, ("changes-before",)), (80, ("project_id", "user_id")))
_LIVE = "os_compute_api:servers:migrations:"
_FORCE_COMPLETE = resources.validator(
    {
        "type": "object",
        "properties": {"force_complete": {"type": "null"}},
        "required": ["force_complete"],
        "additionalProperties": False,
    }
)


class Migrations:
    """``/os-migrations``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List migrations, the newest first; from 2.59 page by page."""
        policies.require(self._services.enforcer, resources.context_of(req), "os_compute_api:os-migrations:index")
        minor = microversion.version_of(req).minor
        params = queries.parameters(req)
        paged, owned = minor >= 59, minor >= 80
        if paged:
            queries.check_known(
                params, *_FILTERS, *(name for since, names in _SINCE if since <= minor for name in names)
            )
        wanted = moving.Listed(
            status=queries.last(params, "status"),
            type=queries.last(params, "migration_type"),
            host=queries.last(params, "host"),
            source_host=queries.last(params, "source_compute"),
            server_uuid=queries.last(params, "instance_uuid"),
            project_id=queries.last(params, "project_id") if owned else None,
            user_id=queries.last(params, "user_id") if owned else None,
            since=queries.moment(params, "changes-since") if paged else None,
            before=queries.moment(params, "changes-before") if minor >= 66 else None,
            marker=queries.last(params, "marker") if paged else None,
            limit=queries.limit(params, self._services.conf.api.max_limit) if paged else None,
        )
        with self._services.db.reading() as session:
            found = moving.list_page(session, wanted)
        listed: dict[str, Any] = {"migrations": [_view(migration, uuid, req) for migration, uuid in found]}
        if paged and found and len(found) == wanted.limit:
            listed["migrations_links"] = [queries.next_link(req, "/os-migrations", found[-1][0].uuid)]
        resp.media = listed


class LiveMigrations(ServerResource):
    """``/servers/{id}/migrations``: as in Nova the live ones that are under way."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List them (2.23); there is one at most."""
        microversion.need(req, 23)
        minor = microversion.version_of(req).minor
        scope = self._scope(resources.context_of(req), _LIVE + "index")
        resp.media = {"migrations": [_live_view(it, uuid, minor) for it in self._under_way(uuid, scope)]}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, number: str) -> None:
        """Show one (2.23).

        :raises accelsched.errors.NotFoundError: when it is none of these
        """
        microversion.need(req, 23)
        minor = microversion.version_of(req).minor
        scope = self._scope(resources.context_of(req), _LIVE + "show")
        with self._services.db.reading() as session:
            migration = moving.get(session, uuid, number, project_id=scope)
        if not moves.is_live(migration):
            raise errors.NotFoundError(f"Migration {number} for server {uuid} is not live-migration.")
        if migration.id not in [one.id for one in self._under_way(uuid, scope)]:
            raise errors.NotFoundError(f"Live migration {number} for server {uuid} is not in progress.")
        resp.media = {"migration": _live_view(migration, uuid, minor)}

    def on_post_action(self, req: falcon.Request, resp: falcon.Response, uuid: str, number: str) -> None:
        """Have one end soon, at the price of a guest that stands still (2.22).

        :raises accelsched.errors.InvalidError: when libvirt has not begun it, or it is over
        """
        microversion.need(req, 22)
        scope = self._scope(resources.context_of(req), _LIVE + "force_complete")
        resources.body_of(req, _FORCE_COMPLETE)
        self._change(req, functools.partial(live_migration.force, uuid=uuid, number=number, project_id=scope))
        resp.status = falcon.HTTP_202

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, number: str) -> None:
        """Give one up (2.24); from 2.65 on before libvirt has begun it, too.

        :raises accelsched.errors.InvalidError: when it is over, or that early
        """
        microversion.need(req, 24)
        early = microversion.version_of(req).minor >= 65
        scope = self._scope(resources.context_of(req), _LIVE + "delete")
        abort = functools.partial(live_migration.abort, uuid=uuid, number=number, project_id=scope, early=early)
        self._change(req, abort)
        resp.status = falcon.HTTP_202

    def _under_way(self, uuid: str, scope: str | None) -> list[Migration]:
        with self._services.db.reading() as session:
            return live_migration.under_way(session, uuid, project_id=scope)

    def _change(self, req: falcon.Request, change: Callable[..., Sequence[str]]) -> None:
        """Change a migration, and have the agents look that have to do with it."""
        origin = Origin.of(resources.context_of(req))

        def write(session: Session) -> list[tuple[str, str]]:
            return [(hosts.agent_of(session, name) or "", name) for name in change(session, origin=origin)]

        for agent, name in self._services.db.transact(write):
            hint("sync", functools.partial(self._services.agents.sync, agent, [name]))


def _live_view(migration: Migration, server_uuid: str, minor: int) -> dict[str, Any]:
    progress = migration.target.get("progress", {})
    view: dict[str, Any] = {
        "id": migration.id,
        "server_uuid": server_uuid,
        "status": migration.status,
        "source_compute": migration.source_host,
        "source_node": migration.source_host,
        "dest_compute": migration.dest_host,
        "dest_node": migration.dest_host,
        "dest_host": None,
        "created_at": migration.created_at.isoformat(),
        "updated_at": migration.updated_at.isoformat(),
        **{
            f"{what}_{part}_bytes": progress.get(f"{what}_{part}")
            for what in ("memory", "disk")
            for part in ("total", "processed", "remaining")
        },
    }
    if minor >= 59:
        view["uuid"] = migration.uuid
    if minor >= 80:
        view |= {"user_id": migration.user_id, "project_id": migration.project_id}
    return view


def _view(migration: Migration, server_uuid: str, req: falcon.Request) -> dict[str, Any]:
    minor = microversion.version_of(req).minor
    view: dict[str, Any] = {
        "id": migration.id,
        "instance_uuid": server_uuid,
        "status": migration.status,
        "source_compute": migration.source_host,
        "source_node": migration.source_host,
        "dest_compute": migration.dest_host,
        "dest_node": migration.dest_host,
        "dest_host": None,
        "old_instance_type_id": migration.old_flavor_id,
        "new_instance_type_id": migration.new_flavor_id,
        "created_at": migration.created_at.isoformat(),
        "updated_at": migration.updated_at.isoformat(),
    }
    if minor >= 23:
        view["migration_type"] = migration.type
        if moves.is_live(migration) and migration.status in live_migration.UNDER_WAY:
            view["links"] = views.links(req.prefix, server_uuid, f"/migrations/{migration.id}")
    if minor >= 59:
        view["uuid"] = migration.uuid
    if minor >= 80:
        view |= {"user_id": migration.user_id, "project_id": migration.project_id}
    return view
