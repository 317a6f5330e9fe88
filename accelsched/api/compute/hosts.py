# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts as operators see them: ``/os-hypervisors``, ``/os-services``, ``/os-availability-zone``."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import falcon
import jsonschema
from oslo_utils import strutils, uuidutils
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute.parameter_types import BOOLEAN
from accelsched.api.compute.servers import hint
from accelsched.compute import hosts, hypervisors, live_migration, moving, rebuilding, zones
from accelsched.db.compute import Host
from accelsched.db.instance_actions import Origin

if TYPE_CHECKING:
    from accelsched.api.services import Services

LOG = logging.getLogger(__name__)

_BINARY = "nova-compute"  # what clients look for
_ADDED_UP = (
    *("vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "free_ram_mb", "local_gb", "local_gb_used"),
    *("free_disk_gb", "disk_available_least", "current_workload", "running_vms"),
)

_UPDATE = resources.validator(
    {
        "type": "object",
        "properties": {
            "status": {"enum": ["enabled", "disabled"]},
            "disabled_reason": {"type": "string", "minLength": 1, "maxLength": 255},
            "forced_down": BOOLEAN,
        },
        "minProperties": 1,
        "additionalProperties": False,
    }
)


def _action(**properties: Any) -> jsonschema.protocols.Validator:
    name = {"type": "string", "minLength": 1, "maxLength": 255}
    names, needed = {"host": name, "binary": name}, ["host", "binary", *properties]
    return resources.validator(
        {"type": "object", "properties": {**names, **properties}, "required": needed, "additionalProperties": False}
    )


# What the path says until 2.53, with what the body says besides, and what that changes.
_ACTIONS: dict[str, tuple[jsonschema.protocols.Validator, dict[str, str]]] = {
    "enable": (_action(), {"status": "enabled"}),
    "disable": (_action(), {"status": "disabled"}),
    "disable-log-reason": (
        _action(disabled_reason={"type": "string", "minLength": 1, "maxLength": 255}),
        {"status": "disabled"},
    ),
    "force-down": (_action(forced_down=BOOLEAN), {}),
}


class HostResource:
    """What the resources of hosts share."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def _require(self, req: falcon.Request, rule: str) -> None:
        policies.require(self._services.enforcer, resources.context_of(req), rule, {})

    def _is_up(self, host: Host) -> bool:
        return hosts.is_up(host, self._services.conf.scheduler.service_down_time)


class Hypervisors(HostResource):
    """``/os-hypervisors``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List hypervisors."""
        self._require(req, "os_compute_api:os-hypervisors:list")
        resp.media = self._list(req, "/os-hypervisors", detailed=False)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List hypervisors with what they have."""
        self._require(req, "os_compute_api:os-hypervisors:list-detail")
        resp.media = self._list(req, "/os-hypervisors/detail", detailed=True)

    def _list(self, req: falcon.Request, path: str, *, detailed: bool) -> dict[str, Any]:
        minor = microversion.version_of(req).minor
        params = queries.parameters(req)
        if minor >= 53:
            queries.check_known(params, "limit", "marker", "hypervisor_hostname_pattern", "with_servers")
        # Nova pages from 2.33.
        limit = queries.limit(params, self._services.conf.api.max_limit) if minor >= 33 else None
        pattern = queries.last(params, "hypervisor_hostname_pattern") if minor >= 53 else None
        if pattern is not None and params.keys() & {"limit", "marker"}:
            raise errors.InvalidError("Hypervisors that match hypervisor_hostname_pattern are not listed in pages")
        with self._services.db.reading() as session:
            found = hypervisors.list_page(
                session, hostname_part=pattern, marker=queries.last(params, "marker") if limit else None, limit=limit
            )
            servers = _servers(req, session, found)
        if pattern is not None and not found:
            raise errors.NotFoundError(f"No hypervisor matching '{pattern[:100]}' could be found.")
        listed: dict[str, Any] = {
            "hypervisors": [
                {**self._view(item, minor, detailed=detailed), **servers.get(item.host.name, {})} for item in found
            ]
        }
        if limit and len(found) == limit:
            listed["hypervisors_links"] = [queries.next_link(req, path, found[-1].host.node_uuid)]
        return listed

    def on_get_search(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """List the hypervisors whose hostname contains a text, until 2.53."""
        self._require(req, "os_compute_api:os-hypervisors:search")
        resp.media = {"hypervisors": [self._view(item, 1, detailed=False) for item in self._matching(req, id_)]}

    def on_get_servers(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """List them with their servers, until 2.53."""
        self._require(req, "os_compute_api:os-hypervisors:servers")
        found = self._matching(req, id_)
        with self._services.db.reading() as session:
            on_them = hypervisors.servers_on(session, [item.host.name for item in found])
        resp.media = {
            "hypervisors": [
                {**self._view(item, 1, detailed=False), **_named(on_them.get(item.host.name, []))} for item in found
            ]
        }

    def _matching(self, req: falcon.Request, pattern: str) -> Sequence[hypervisors.Hypervisor]:
        if microversion.version_of(req).minor >= 53:
            raise falcon.HTTPNotFound(description="The resource could not be found.")
        with self._services.db.reading() as session:
            found = hypervisors.list_page(session, hostname_part=pattern)
        if not found:
            raise errors.NotFoundError(f"No hypervisor matching '{pattern[:100]}' could be found.")
        return found

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show a hypervisor."""
        self._require(req, "os_compute_api:os-hypervisors:show")
        if microversion.version_of(req).minor >= 53:
            _check_uuid(id_)
            queries.check_known(queries.parameters(req), "with_servers")
        with self._services.db.reading() as session:
            item = hypervisors.get(session, id_)
            servers = _servers(req, session, [item])
        view = self._view(item, microversion.version_of(req).minor, detailed=True)
        resp.media = {"hypervisor": {**view, **servers.get(item.host.name, {})}}

    def on_get_statistics(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Add up what enabled hypervisors have, until 2.88."""
        self._require(req, "os_compute_api:os-hypervisors:statistics")
        if microversion.version_of(req).minor >= 88:
            raise falcon.HTTPNotFound
        with self._services.db.reading() as session:
            found = [item for item in hypervisors.list_page(session) if not item.host.disabled]
        views = [self._view(item, 1, detailed=True) for item in found]
        sums = {key: sum(view[key] or 0 for view in views) for key in _ADDED_UP}
        resp.media = {"hypervisor_statistics": {"count": len(views), **sums}}

    def on_get_uptime(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Say that uptimes are not known, as Nova does for drivers that do not tell."""
        self._require(req, "os_compute_api:os-hypervisors:uptime")
        if microversion.version_of(req).minor >= 88:
            raise falcon.HTTPNotFound
        self._get(id_)
        raise falcon.HTTPNotImplemented(description="Virt driver does not implement uptime function.")

    def _get(self, id_: str) -> hypervisors.Hypervisor:
        with self._services.db.reading() as session:
            return hypervisors.get(session, id_)

    def _view(self, item: hypervisors.Hypervisor, minor: int, *, detailed: bool) -> dict[str, Any]:
        host = item.host
        view: dict[str, Any] = {
            "id": host.node_uuid if minor >= 53 else host.id,
            "hypervisor_hostname": host.hypervisor["hostname"],
            "state": "up" if self._is_up(host) else "down",
            "status": "disabled" if host.disabled else "enabled",
        }
        if not detailed:
            return view
        view |= {
            "host_ip": host.hypervisor.get("host_ip"),
            "hypervisor_type": host.hypervisor["type"],
            "hypervisor_version": host.hypervisor["version"],
            "service": {
                "id": host.service_uuid if minor >= 53 else host.id,
                "host": host.name,
                "disabled_reason": host.disabled_reason,
            },
        }
        if minor >= 88:
            return view | {"uptime": None}
        vcpus, ram, disk = (item.amount(name) for name in ("VCPU", "MEMORY_MB", "DISK_GB"))
        return view | {
            "cpu_info": {"arch": host.hypervisor["cpu_arch"]} if minor >= 28 else "",
            "vcpus": vcpus.total,
            "vcpus_used": vcpus.used,
            "memory_mb": ram.total,
            "memory_mb_used": ram.used,
            "free_ram_mb": ram.total - ram.used,
            "local_gb": disk.total,
            "local_gb_used": disk.used,
            "free_disk_gb": disk.total - disk.used,
            "disk_available_least": None,
            "current_workload": 0,
            "running_vms": item.servers,
        }


def _check_uuid(id_: str) -> None:
    """Refuse numbers, by which hypervisors and services went until 2.53.

    :raises accelsched.errors.InvalidError: when it is no uuid
    """
    if not uuidutils.is_uuid_like(id_):
        raise errors.InvalidError(f"Invalid uuid {id_[:100]}")


def _servers(
    req: falcon.Request, session: Session, found: Sequence[hypervisors.Hypervisor]
) -> dict[str, dict[str, list[dict[str, str]]]]:
    """Return what ``with_servers`` (2.53) adds to the hypervisor of each host that has servers."""
    params = queries.parameters(req)
    minor = microversion.version_of(req).minor
    if minor < 53 or not queries.boolean(params, "with_servers"):
        return {}
    on_them = hypervisors.servers_on(session, [item.host.name for item in found])
    # From 2.75 on a hypervisor that has none says so.
    none: dict[str, list[dict[str, str]]] = {"servers": []} if minor >= 75 else {}
    return {item.host.name: {**none, **_named(on_them.get(item.host.name, []))} for item in found}


def _named(uuids: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Return what a hypervisor that has servers shows of them; nothing of one that has none."""
    return {"servers": [{"uuid": uuid, "name": f"accelsched-{uuid}"} for uuid in uuids]} if uuids else {}


class ComputeServices(HostResource):
    """``/os-services``: the agents."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List services."""
        self._require(req, "os_compute_api:os-services:list")
        params = queries.parameters(req)
        if microversion.version_of(req).minor >= 75:
            queries.check_known(params, "host", "binary")
        binary = queries.last(params, "binary")
        with self._services.db.reading() as session:
            found = hypervisors.services(session, host=queries.last(params, "host"))
            in_zone = zones.of_hosts(session, None if len(found) > 1 else [host.name for host in found])
        minor = microversion.version_of(req).minor
        resp.media = {"services": [self._view(host, in_zone, minor) for host in found if binary in (None, _BINARY)]}

    def on_put_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Disable, enable or force down a service; until 2.53 the path says which of them."""
        self._require(req, "os_compute_api:os-services:update")
        minor = microversion.version_of(req).minor
        if minor < 53:
            resp.media = {"service": self._update_as_before(req, id_, minor)}
            return
        _check_uuid(id_)
        wanted = resources.body_of(req, _UPDATE)
        if "disabled_reason" in wanted and wanted.get("status") != "disabled":
            raise errors.InvalidError("Specifying disabled_reason requires that status is 'disabled'.")
        host, in_zone = self._update(req, hypervisors.by_id(id_), wanted)
        resp.media = {"service": self._view(host, in_zone, minor)}

    def _update_as_before(self, req: falcon.Request, action: str, minor: int) -> dict[str, Any]:
        if action not in _ACTIONS or (action == "force-down" and minor < 11):
            raise falcon.HTTPNotFound(description="Unknown action")
        schema, changes = _ACTIONS[action]
        wanted = resources.body_of(req, schema)
        if wanted["binary"] != _BINARY:
            raise errors.NotFoundError(f"Could not find binary {wanted['binary']} on host {wanted['host']}.")
        told = {key: value for key, value in wanted.items() if key not in ("host", "binary")}
        self._update(req, hypervisors.by_host(wanted["host"]), {**changes, **told})
        return {**wanted, **changes}

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Forget a host that is no more."""
        self._require(req, "os_compute_api:os-services:delete")
        if id_.isdecimal() == (microversion.version_of(req).minor >= 53):
            raise errors.InvalidError(f"Invalid service id {id_[:100]}: a number before 2.53, a uuid since")
        self._services.db.transact(lambda session: hypervisors.remove_service(session, hypervisors.by_id(id_)))
        resp.status = falcon.HTTP_204

    def _update(
        self, req: falcon.Request, condition: ColumnElement[bool], wanted: Mapping[str, Any]
    ) -> tuple[Host, Mapping[str, str]]:
        """Change a service, and evacuate its servers where forcing it down says so; return it with its zone."""
        status = wanted.get("status")
        forced_down = strutils.bool_from_string(wanted["forced_down"]) if "forced_down" in wanted else None
        lost = bool(forced_down)
        evacuates = lost and self._services.conf.scheduler.evacuate_on_failure
        origin = Origin.of(resources.context_of(req))

        def update(session: Session) -> tuple[Host, Mapping[str, str], int, list[tuple[str, str]]]:
            host = hypervisors.update_service(
                session,
                condition,
                disabled=None if status is None else status == "disabled",
                disabled_reason=wanted.get("disabled_reason"),
                forced_down=forced_down,
            )
            back: set[str] = set()
            if lost:
                back |= moving.host_lost(session, host.name, evacuated=evacuates)
                back |= live_migration.host_lost(session, host.name, self._services.conf.scheduler.max_attempts)
            agents = [(hosts.agent_of(session, name) or "", name) for name in sorted(back)]
            on_their_way = rebuilding.evacuate_host(session, host.name, origin) if evacuates else 0
            return host, zones.of_hosts(session, [host.name]), on_their_way, agents

        host, in_zone, on_their_way, agents = self._services.db.transact(update)
        for agent, name in agents:
            hint("sync", functools.partial(self._services.agents.sync, agent, [name]))
        if on_their_way:
            LOG.warning("Host %s was forced down: %d servers are evacuated", host.name, on_their_way)
        if lost:
            hint("place", self._services.scheduler.place)
        return host, in_zone

    def _view(self, host: Host, in_zone: Mapping[str, str], minor: int) -> dict[str, Any]:
        view: dict[str, Any] = {
            "id": host.service_uuid if minor >= 53 else host.id,
            "binary": _BINARY,
            "host": host.name,
            "zone": in_zone.get(host.name, self._services.conf.default_availability_zone),
            "status": "disabled" if host.disabled else "enabled",
            "state": "up" if self._is_up(host) else "down",
            "updated_at": host.last_seen_at.isoformat(timespec="microseconds"),
            "disabled_reason": host.disabled_reason,
        }
        return view | {"forced_down": host.forced_down} if minor >= 11 else view


class AvailabilityZones(HostResource):
    """``/os-availability-zone``: what aggregates make of hosts. One is available when one of its hosts is enabled."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List zones."""
        self._require(req, "os_compute_api:os-availability-zone:list")
        resp.media = {"availabilityZoneInfo": [_zone(name, found, None) for name, found in self._by_zone()]}

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List zones with their hosts."""
        self._require(req, "os_compute_api:os-availability-zone:detail")
        resp.media = {
            "availabilityZoneInfo": [
                _zone(name, found, {host.name: {_BINARY: self._service(host)} for host in found})
                for name, found in self._by_zone()
            ]
        }

    def _by_zone(self) -> list[tuple[str, list[Host]]]:
        with self._services.db.reading() as session:
            found = hypervisors.services(session)
            in_zone = zones.of_hosts(session)
        by_zone: dict[str, list[Host]] = defaultdict(list)
        for host in found:
            by_zone[in_zone.get(host.name, self._services.conf.default_availability_zone)].append(host)
        return sorted(by_zone.items())

    def _service(self, host: Host) -> dict[str, Any]:
        return {
            "available": not host.disabled,
            "active": self._is_up(host),
            "updated_at": host.last_seen_at.isoformat(timespec="microseconds"),
        }


def _zone(name: str, found: list[Host], shown: dict[str, Any] | None) -> dict[str, Any]:
    available = any(not host.disabled for host in found)
    return {"zoneName": name, "zoneState": {"available": available}, "hosts": shown}
