# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/servers/{id}/os-instance-actions``."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched import errors, names, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute.servers import ServerResource
from accelsched.compute import instance_actions as domain
from accelsched.compute import servers
from accelsched.db.compute import InstanceAction, Server

_RULE = "os_compute_api:os-instance-actions:"


class InstanceActions(ServerResource):
    """What was done to a server, the newest first."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List a server's actions; page by page from 2.58."""
        scope = self._scope(resources.context_of(req), _RULE + "list")
        minor = microversion.version_of(req).minor
        params = queries.parameters(req) if minor >= 58 else {}
        since_66 = ("changes-before",) if minor >= 66 else ()
        queries.check_known(params, "limit", "marker", "changes-since", *since_66)
        since = queries.moment(params, "changes-since")
        before = queries.moment(params, "changes-before") if minor >= 66 else None
        if since is not None and before is not None and since > before:
            raise errors.InvalidError("The value of changes-since must be less than or equal to changes-before.")
        limit = queries.limit(params, self._services.conf.api.max_limit)
        with self._services.db.reading() as session:
            server = servers.get(session, uuid, project_id=scope, deleted=minor >= 21).server
            found = domain.list_page(
                session, server.id, since=since, before=before, marker=queries.last(params, "marker"), limit=limit
            )
        resp.media = {"instanceActions": [_view(action, server, minor) for action in found]}
        if minor >= 58 and found and len(found) == limit:
            path = f"/servers/{uuid}/os-instance-actions"
            resp.media["links"] = [queries.next_link(req, path, found[-1].request_id)]

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, uuid: str, request_id: str) -> None:
        """Show an action, and to whom it may be shown what happened for it."""
        context, enforcer = resources.context_of(req), self._services.enforcer
        scope = self._scope(context, _RULE + "show")
        minor = microversion.version_of(req).minor
        with self._services.db.reading() as session:
            server = servers.get(session, uuid, project_id=scope, deleted=minor >= 21).server
            action = domain.get(session, server.id, request_id)
        view = _view(action, server, minor)
        inside = policies.allowed(enforcer, context, _RULE + "events")
        if inside or minor >= 51:
            detailed = policies.allowed(enforcer, context, _RULE + "events:details")
            view["events"] = _events(action, server, minor, inside=inside, detailed=detailed)
        resp.media = {"instanceAction": view}


def _view(action: InstanceAction, server: Server, minor: int) -> dict[str, Any]:
    view = {
        "action": action.action,
        "instance_uuid": server.uuid,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": action.started_at.isoformat(),
        "message": "Error" if action.fault else None,
    }
    if minor >= 58:
        view["updated_at"] = action.updated_at.isoformat()
    return view


def _events(
    action: InstanceAction, server: Server, minor: int, *, inside: bool, detailed: bool
) -> list[dict[str, Any]]:
    """Return what happened for an action.

    :param inside: whether the reader may see the host and what went wrong in it
    :param detailed: whether the reader may see why (2.84)
    """
    if action.event is None:
        return []
    fault = action.fault or {}
    result = "Error" if fault else "Success"
    event = {
        "event": action.event,
        "start_time": action.started_at.isoformat(),
        "finish_time": None if action.finished_at is None else action.finished_at.isoformat(),
        "result": None if action.finished_at is None else result,
    }
    if inside:
        event["traceback"] = fault.get("details")
    if minor >= 62:
        event["hostId"] = names.host_alias(server.project_id, action.host or "")
        if inside:
            event["host"] = action.host
    if minor >= 84 and detailed:
        event["details"] = fault.get("message")
    return [event]
