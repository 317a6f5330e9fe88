# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-migrations``: servers that moved, or are about to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from accelsched import policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.compute import moving
from accelsched.db.compute import Migration

if TYPE_CHECKING:
    from accelsched.api.services import Services


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
