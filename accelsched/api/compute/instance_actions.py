# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/servers/{id}/os-instance-actions``."""

from __future__ import annotations

import functools
from typing import Any

import falcon

from accelsched import errors, names, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute.servers import ServerResource
from accelsched.compute import instance_actions as domain
from accelsched.compute import live_migration, servers
from accelsched.db.compute import InstanceAction, Server
from accelsched.db.moves import Tried

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
            tried = live_migration.tried_for(session, action)
        view = _view(action, server, minor)
        inside = policies.allowed(enforcer, context, _RULE + "events")
        if inside or minor >= 51:
            detailed = policies.allowed(enforcer, context, _RULE + "events:details")
            events = [*map(_trial, reversed(tried)), _event(action)] if action.event is not None else []
            told = functools.partial(_told, server=server, minor=minor, inside=inside, detailed=detailed)
            view["events"] = [told(event) for event in events]
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


def _event(action: InstanceAction) -> dict[str, Any]:
    """Return what had to happen for an action, with all that anybody may see of it."""
    fault = action.fault or {}
    result = "Error" if fault else "Success"
    return {
        "event": action.event,
        "start_time": action.started_at.isoformat(),
        "finish_time": None if action.finished_at is None else action.finished_at.isoformat(),
        "result": None if action.finished_at is None else result,
        "traceback": fault.get("details"),
        "host": action.host,
        "details": fault.get("message"),
    }


def _trial(tried: Tried) -> dict[str, Any]:
    """Return that a host turned out not to fit, in an event named as that in which Nova checks hosts."""
    return {
        "event": "compute_check_can_live_migrate_destination",
        "start_time": _nova_time(tried["began"]),
        "finish_time": _nova_time(tried["ended"]),
        "result": "Error",
        "traceback": tried["details"],
        "host": tried["host"],
        "details": tried["message"],
    }


def _nova_time(moment: str | None) -> str | None:
    return None if moment is None else moment.removesuffix("Z")


def _told(event: dict[str, Any], server: Server, minor: int, *, inside: bool, detailed: bool) -> dict[str, Any]:
    """Return an event as far as it is shown.

    :param inside: whether the reader may see the host and what went wrong in it
    :param detailed: whether the reader may see why (2.84)
    """
    view = {key: event[key] for key in ("event", "start_time", "finish_time", "result")}
    if inside:
        view["traceback"] = event["traceback"]
    if minor >= 62:
        view["hostId"] = names.host_alias(server.project_id, event["host"] or "")
        if inside:
            view["host"] = event["host"]
    if minor >= 84 and detailed:
        view["details"] = event["details"]
    return view
