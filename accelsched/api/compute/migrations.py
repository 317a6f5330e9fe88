# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-migrations``: servers that moved, or are about to; ``/servers/{id}/migrations``: that run meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute.servers import ServerResource
from accelsched.compute import moving
from accelsched.db.compute import Migration

if TYPE_CHECKING:
    from accelsched.api.services import Services


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
        listed: dict[str, Any] = {"migrations": [_view(migration, uuid, minor) for migration, uuid in found]}
        if paged and found and len(found) == wanted.limit:
            listed["migrations_links"] = [queries.next_link(req, "/os-migrations", found[-1][0].uuid)]
        resp.media = listed


class LiveMigrations(ServerResource):
    """``/servers/{id}/migrations``: as in Nova the live ones that are under way, of which there are none."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List none (2.23)."""
        microversion.need(req, 23)
        self._get(uuid, self._scope(resources.context_of(req), _LIVE + "index"))
        resp.media = {"migrations": []}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, number: str) -> None:
        """Show none (2.23).

        :raises accelsched.errors.NotFoundError: always
        """
        microversion.need(req, 23)
        self._find(uuid, number, self._scope(resources.context_of(req), _LIVE + "show"))
        raise errors.NotFoundError(f"Migration {number} for server {uuid} is not live-migration.")

    def on_post_action(self, req: falcon.Request, resp: falcon.Response, uuid: str, number: str) -> None:
        """Refuse to have one end soon (2.22).

        :raises accelsched.errors.InvalidError: always, if there is such a migration of the server
        """
        microversion.need(req, 22)
        scope = self._scope(resources.context_of(req), _LIVE + "force_complete")
        resources.body_of(req, _FORCE_COMPLETE)
        raise _in_state(self._find(uuid, number, scope), uuid, "force complete")

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, number: str) -> None:
        """Refuse to end one (2.24).

        :raises accelsched.errors.InvalidError: always, if there is such a migration of the server
        """
        microversion.need(req, 24)
        raise _in_state(
            self._find(uuid, number, self._scope(resources.context_of(req), _LIVE + "delete")), uuid, "abort"
        )

    def _find(self, uuid: str, number: str, scope: str | None) -> Migration:
        with self._services.db.reading() as session:
            return moving.get(session, uuid, number, project_id=scope)


def _in_state(migration: Migration, uuid: str, verb: str) -> errors.InvalidError:
    return errors.InvalidError(
        f"Migration {migration.id} state of instance {uuid} is {migration.status}. Cannot {verb} while the migration "
        "is in this state."
    )


def _view(migration: Migration, server_uuid: str, minor: int) -> dict[str, Any]:
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
    if minor >= 59:
        view["uuid"] = migration.uuid
    if minor >= 80:
        view |= {"user_id": migration.user_id, "project_id": migration.project_id}
    return view
