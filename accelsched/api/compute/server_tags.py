# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/servers/{id}/tags`` (2.26)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import falcon
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.api import resources
from accelsched.api.compute import microversion
from accelsched.api.compute import server_schemas as schemas
from accelsched.api.compute.servers import ServerResource
from accelsched.compute import server_tags as domain
from accelsched.compute import servers
from accelsched.db.compute import Server
from accelsched.policies.servers import TAGS

T = TypeVar("T")


class Tags(ServerResource):
    """``/servers/{id}/tags`` and ``/servers/{id}/tags/{tag}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List a server's tags."""
        microversion.need(req, 26)
        resp.media = {"tags": list(self._get(uuid, self._scope(resources.context_of(req), TAGS + "index")).tags)}

    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Replace a server's tags."""
        microversion.need(req, 26)
        tags = resources.body_of(req, schemas.TAGS)["tags"]
        self._change(req, uuid, "update_all", lambda session, server: domain.replace(session, server, tags))
        resp.media = {"tags": sorted(set(tags))}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Take all tags off a server."""
        microversion.need(req, 26)
        self._change(req, uuid, "delete_all", lambda session, server: domain.replace(session, server, []))
        resp.status = falcon.HTTP_204

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, tag: str) -> None:
        """Tell whether a server has a tag."""
        microversion.need(req, 26)
        shown = self._get(uuid, self._scope(resources.context_of(req), TAGS + "show"))
        if tag not in shown.tags:
            raise errors.NotFoundError(domain.missing(shown.server, tag))
        resp.status = falcon.HTTP_204

    def on_put_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, tag: str) -> None:
        """Put a tag on a server."""
        microversion.need(req, 26)
        resources.check(schemas.ONE_TAG, tag)
        added = self._change(req, uuid, "update", lambda session, server: domain.add(session, server, tag))
        resp.status = falcon.HTTP_201 if added else falcon.HTTP_204
        if added:
            resp.location = f"{req.prefix}/servers/{uuid}/tags/{tag}"

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, tag: str) -> None:
        """Take a tag off a server."""
        microversion.need(req, 26)
        self._change(req, uuid, "delete", lambda session, server: domain.remove(session, server, tag))
        resp.status = falcon.HTTP_204

    def _change(self, req: falcon.Request, uuid: str, rule: str, change: Callable[[Session, Server], T]) -> T:
        """Change the tags of a server that is locked until it is done, for whoever may."""
        scope = self._scope(resources.context_of(req), TAGS + rule)
        what = rule.replace("_all", "") + " tags"
        return self._services.db.transact(
            lambda session: change(session, servers.settled(session, uuid, what, project_id=scope))
        )
