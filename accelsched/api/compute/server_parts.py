# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What hangs on a server: metadata, and the parts that other services would give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import falcon
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute import server_schemas as schemas
from accelsched.api.compute import server_views as views
from accelsched.api.compute.servers import ServerResource
from accelsched.compute import quotas
from accelsched.compute import servers as domain
from accelsched.policies import servers as rules

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "os_compute_api:server-metadata:"
_CHANGE = rules.SERVERS + "update"


def set_metadata(
    services: Services, uuid: str, items: Mapping[str, str], project_id: str | None, *, replace: bool, admin: bool
) -> dict[str, str]:
    """Write metadata, unless it is more than the server's project may have; return what the server has then."""

    def write(session: Session) -> dict[str, str]:
        server = domain.set_metadata(session, uuid, items, project_id=project_id, replace=replace, admin=admin)
        quotas.check_metadata(session, server.project_id, len(server.metadata_), quotas.defaults(services.conf))
        return server.metadata_

    return services.db.transact(write)


class Metadata(ServerResource):
    """``/servers/{id}/metadata``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List a server's metadata."""
        scope = self._scope(resources.context_of(req), _RULE + "index")
        resp.media = {"metadata": dict(self._get(uuid, scope).server.metadata_)}

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Add items."""
        self._write(req, resp, uuid, "create", replace=False)

    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Replace all items."""
        self._write(req, resp, uuid, "update_all", replace=True)

    def _write(self, req: falcon.Request, resp: falcon.Response, uuid: str, rule: str, *, replace: bool) -> None:
        scope = self._scope(resources.context_of(req), _RULE + rule)
        items = resources.body_of(req, schemas.METADATA_SET)["metadata"]
        resp.media = {
            "metadata": set_metadata(self._services, uuid, items, scope, replace=replace, admin=self._is_admin(req))
        }


class MetadataItem(ServerResource):
    """``/servers/{id}/metadata/{key}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str, key: str) -> None:
        """Show one item."""
        scope = self._scope(resources.context_of(req), _RULE + "show")
        metadata = self._get(uuid, scope).server.metadata_
        if key not in metadata:
            raise errors.NotFoundError("Metadata item was not found")
        resp.media = {"meta": {key: metadata[key]}}

    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str, key: str) -> None:
        """Change one item."""
        scope = self._scope(resources.context_of(req), _RULE + "update")
        item = resources.body_of(req, schemas.METADATA_ITEM)["meta"]
        if list(item) != [key]:
            raise errors.InvalidError("Request body and URI mismatch")
        set_metadata(self._services, uuid, item, scope, replace=False, admin=self._is_admin(req))
        resp.media = {"meta": item}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str, key: str) -> None:
        """Remove one item."""
        scope = self._scope(resources.context_of(req), _RULE + "delete")
        self._services.db.transact(
            lambda session: domain.remove_metadata(session, uuid, key, project_id=scope, admin=self._is_admin(req))
        )
        resp.status = falcon.HTTP_204


class Ips(ServerResource):
    """``/servers/{id}/ips`` and ``/servers/{id}/ips/{network}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List the addresses that a server is known to have."""
        server = self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:ips:index")).server
        resp.media = {"addresses": views.addresses(server, detailed=False)}

    def on_get_item(self, req: falcon.Request, resp: falcon.Response, uuid: str, item: str) -> None:
        """List those on one network."""
        server = self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:ips:show")).server
        found = views.addresses(server, detailed=False)
        if item not in found:
            raise errors.NotFoundError("Instance is not a member of specified network")
        resp.media = {item: found[item]}


class Password(ServerResource):
    """``/servers/{id}/os-server-password``: what a guest posted to the metadata service, which is not there."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Tell that no guest has posted any."""
        self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:os-server-password:show"))
        resp.media = {"password": ""}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Forget it."""
        self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:os-server-password:clear"))
        resp.status = falcon.HTTP_204


class Nothing(ServerResource):
    """A collection that is empty for every server here, because the service that would fill it is not there."""

    def __init__(self, services: Services, rule: str, key: str, *, in_pages: bool = False) -> None:
        """Say what is listed.

        :param rule: policy of the list
        :param key: of the answer
        :param in_pages: the list takes ``limit`` and ``offset``
        """
        super().__init__(services)
        self._rule = rule
        self._in_pages = in_pages
        self._body: dict[str, list[object]] = {key: []}

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List nothing, of a server that must be there."""
        self._get(uuid, self._scope(resources.context_of(req), self._rule))
        if self._in_pages:
            params = queries.parameters(req)
            if microversion.version_of(req).minor >= 75:
                queries.check_known(params, "limit", "offset")
            queries.limit(params, self._services.conf.api.max_limit)
            queries.number(params, "offset")
        resp.media = self._body

    def on_get_item(self, req: falcon.Request, resp: falcon.Response, uuid: str, item: str) -> None:
        """Find nothing."""
        self._find(req, uuid, item, self._rule)

    def on_put_item(self, req: falcon.Request, resp: falcon.Response, uuid: str, item: str) -> None:
        """Find nothing to change."""
        self._find(req, uuid, item, _CHANGE)

    def on_delete_item(self, req: falcon.Request, resp: falcon.Response, uuid: str, item: str) -> None:
        """Find nothing to detach."""
        self._find(req, uuid, item, _CHANGE)

    def _find(self, req: falcon.Request, uuid: str, item: str, rule: str) -> None:
        self._get(uuid, self._scope(resources.context_of(req), rule))
        raise errors.NotFoundError(f"{item[:100]} could not be found for instance {uuid}.")

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Refuse: what would be attached cannot exist."""
        self._get(uuid, self._scope(resources.context_of(req), _CHANGE))
        raise errors.InvalidError("This deployment has no network and no volume service: there is nothing to attach.")
