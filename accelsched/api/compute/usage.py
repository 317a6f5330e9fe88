# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-simple-tenant-usage``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import falcon

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.compute import states
from accelsched.compute import usage as domain
from accelsched.db.base import utcnow

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "os_compute_api:os-simple-tenant-usage:"
_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")
_TOTALS = {"total_local_gb_usage": "local_gb", "total_vcpus_usage": "vcpus", "total_memory_mb_usage": "memory_mb"}


class Usage:
    """``/os-simple-tenant-usage`` and ``/os-simple-tenant-usage/{project_id}``; pages of servers from 2.40."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List what every project used."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "list", {})
        period = _period(req)
        uses, links = self._page(req, period, None, "/os-simple-tenant-usage")
        detailed = queries.last(queries.parameters(req), "detailed") == "1"
        by_project: dict[str, list[domain.Use]] = {}
        for use in uses:
            by_project.setdefault(use.server.project_id, []).append(use)
        usages = [_usage(project_id, used, period, detailed=detailed) for project_id, used in by_project.items()]
        resp.media = {"tenant_usages": usages, **({"tenant_usages_links": links} if links else {})}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, project_id: str) -> None:
        """Show what a project used."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, _RULE + "show", {"project_id": project_id})
        period = _period(req)
        uses, links = self._page(req, period, project_id, f"/os-simple-tenant-usage/{project_id}")
        used = _usage(project_id, uses, period, detailed=True) if uses else {}
        resp.media = {"tenant_usage": used, **({"tenant_usage_links": links} if links else {})}

    def _page(
        self, req: falcon.Request, period: domain.Period, project_id: str | None, path: str
    ) -> tuple[list[domain.Use], list[dict[str, str]]]:
        params, minor = queries.parameters(req), microversion.version_of(req).minor
        paged = minor >= 40
        if minor >= 75:
            queries.check_known(
                params, "start", "end", "limit", "marker", *(("detailed",) if project_id is None else ())
            )
        limit = queries.limit(params, self._services.conf.api.max_limit) if paged else None
        marker = queries.last(params, "marker") if paged else None
        with self._services.db.reading() as session:
            uses = domain.of_period(session, period, project_id=project_id, marker=marker, limit=limit)
        more = bool(limit) and len(uses) == limit
        return uses, [queries.next_link(req, path, uses[-1].server.uuid)] if more else []


def _period(req: falcon.Request) -> domain.Period:
    params, now = queries.parameters(req), utcnow()
    # Nova looks at the clock twice: to name no moment is to ask for this one.
    just_before = now - datetime.timedelta(microseconds=1)
    start, stop = _moment(queries.last(params, "start"), just_before), _moment(queries.last(params, "end"), now)
    if not start < stop:
        raise errors.InvalidError("Invalid start time. The start time cannot occur after the end time.")
    return domain.Period(start, min(stop, now))


def _moment(text: str | None, default: datetime.datetime) -> datetime.datetime:
    if not text:
        return default
    for format_ in _FORMATS:
        try:
            return datetime.datetime.strptime(text, format_)
        except ValueError:
            continue
    raise errors.InvalidError(f"Datetime is in invalid format: {text[:50]}")


def _usage(project_id: str, uses: Sequence[domain.Use], period: domain.Period, *, detailed: bool) -> dict[str, Any]:
    shown = [_server(use) for use in uses]
    usage: dict[str, Any] = {
        "tenant_id": project_id,
        "start": _precise(period.start),
        "stop": _precise(period.stop),
        "total_hours": sum(one["hours"] for one in shown),
        **{total: sum(one[key] * one["hours"] for one in shown) for total, key in _TOTALS.items()},
    }
    return {**usage, "server_usages": shown} if detailed else usage


def _server(use: domain.Use) -> dict[str, Any]:
    server, flavor = use.server, use.server.flavor
    ended_at, started_at = server.deleted_at, server.launched_at or server.created_at
    return {
        "instance_id": server.uuid,
        "name": server.name,
        "tenant_id": server.project_id,
        "flavor": flavor["name"],
        "vcpus": flavor["vcpus"],
        "memory_mb": flavor["ram_mb"],
        "local_gb": flavor["disk_gb"] + flavor.get("ephemeral_gb", 0),
        "hours": use.hours,
        "started_at": _precise(started_at),
        "ended_at": _precise(ended_at),
        "state": "terminated" if ended_at else states.of(server).vm_state,
        "uptime": int(((ended_at or utcnow()) - started_at).total_seconds()),
    }


def _precise(when: datetime.datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="microseconds")
