# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-quota-sets`` and ``/os-quota-class-sets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import falcon
from oslo_utils import strutils
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.api.compute.parameter_types import BOOLEAN
from accelsched.compute import quotas as domain
from accelsched.policies import quotas as rules

if TYPE_CHECKING:
    from accelsched.api.services import Services

_LONGEST = 255  # of an owner's name
_MOST = 2**31 - 1
_LIMIT = {"type": ["integer", "string"], "pattern": "^-?[0-9]{1,10}$", "minimum": -1, "maximum": _MOST}
_IN_GROUPS = ("server_groups", "server_group_members")
# What Nova limited once, by the version that no longer knows it, and what is said of it here: there are no networks
# of Nova's own, and files are not injected.
_OF_NETWORKS = ("fixed_ips", "floating_ips", "security_group_rules", "security_groups")
_GONE = (
    (36, dict.fromkeys(_OF_NETWORKS, domain.UNLIMITED)),
    (57, dict.fromkeys(("injected_file_content_bytes", "injected_file_path_bytes", "injected_files"), 0)),
)


def _schema(key: str, **beside: Any) -> Any:
    properties = {**dict.fromkeys(domain.RESOURCES, _LIMIT), **beside}
    limits = {"type": "object", "properties": properties, "additionalProperties": False}
    return resources.validator(
        {"type": "object", "properties": {key: limits}, "required": [key], "additionalProperties": False}
    )


_SET = _schema("quota_set", force=BOOLEAN)
_CLASS_SET = _schema("quota_class_set")


def _old(minor: int) -> dict[str, int]:
    return {name: limit for until, limits in _GONE if minor < until for name, limit in limits.items()}


def _changes(wanted: Mapping[str, Any]) -> dict[str, int]:
    changes = {resource: int(wanted[resource]) for resource in domain.RESOURCES if resource in wanted}
    for resource, limit in changes.items():
        if not domain.UNLIMITED <= limit <= _MOST:  # the schema bounds numbers, not numbers in strings
            raise errors.InvalidError(f"Quota limit {limit} for {resource} must be from -1 to {_MOST}.")
    return changes


class _Quotas:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._configured = domain.defaults(services.conf)

    def _require(self, req: falcon.Request, rule: str, owner: str) -> None:
        policies.require(self._services.enforcer, resources.context_of(req), rule, {"project_id": owner})
        if len(owner) > _LONGEST:
            raise errors.InvalidError(f"Invalid input: an id is at most {_LONGEST} characters long")


class QuotaSets(_Quotas):
    """``/os-quota-sets/{project_id}``. Users have no quotas of their own: ``user_id`` is left out."""

    def _require(self, req: falcon.Request, rule: str, owner: str) -> None:
        super()._require(req, rule, owner)
        if microversion.version_of(req).minor >= 75 and rule != rules.SETS + "defaults":
            queries.check_known(queries.parameters(req), "user_id")

    def on_get(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show a project's limits."""
        self._require(req, rules.SETS + "show", id_)
        with self._services.db.reading() as session:
            resp.media = _set(req, domain.limits(session, id_, self._configured), id_)

    def on_get_defaults(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show the limits of projects that have none of their own."""
        self._require(req, rules.SETS + "defaults", id_)
        with self._services.db.reading() as session:
            resp.media = _set(req, domain.class_limits(session, domain.DEFAULT_CLASS, self._configured), id_)

    def on_get_detail(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show a project's limits and what it has."""
        self._require(req, rules.SETS + "detail", id_)
        with self._services.db.reading() as session:
            most = domain.limits(session, id_, self._configured)
            used = domain.used(session, id_)
        limits = {**_old(microversion.version_of(req).minor), **most}
        detail = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
        resp.media = {"quota_set": {"id": id_, **detail}}

    def on_put(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Give a project limits."""
        self._require(req, rules.SETS + "update", id_)
        wanted = resources.body_of(req, _SET)["quota_set"]
        changes = _changes(wanted)
        force = bool(strutils.bool_from_string(wanted.get("force", False)))

        def write(session: Session) -> dict[str, int]:
            domain.set_limits(session, id_, changes, force=force)
            return domain.limits(session, id_, self._configured)

        resp.media = _set(req, self._services.db.transact(write))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Set a project's limits back to the defaults."""
        self._require(req, rules.SETS + "delete", id_)
        self._services.db.transact(lambda session: domain.forget(session, id_))
        resp.status = falcon.HTTP_202


class QuotaClassSets(_Quotas):
    """``/os-quota-class-sets/{name}``; only the class ``default`` limits anybody, as in Nova."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show a class's limits."""
        self._require(req, rules.CLASSES + "show", id_)
        with self._services.db.reading() as session:
            resp.media = _class_set(req, domain.class_limits(session, id_, self._configured), id_)

    def on_put(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Give a class limits."""
        self._require(req, rules.CLASSES + "update", id_)
        changes = _changes(resources.body_of(req, _CLASS_SET)["quota_class_set"])

        def write(session: Session) -> dict[str, int]:
            domain.set_class_limits(session, id_, changes)
            return domain.class_limits(session, id_, self._configured)

        resp.media = _class_set(req, self._services.db.transact(write))


def _set(req: falcon.Request, limits: Mapping[str, int], project_id: str | None = None) -> dict[str, Any]:
    shown = {**_old(microversion.version_of(req).minor), **limits}
    return {"quota_set": shown if project_id is None else {"id": project_id, **shown}}


def _class_set(req: falcon.Request, limits: Mapping[str, int], name: str | None = None) -> dict[str, Any]:
    minor = microversion.version_of(req).minor
    shown = {**_old(minor), **limits}
    if minor < 50:  # until then Nova forgot here what had changed about groups and networks
        shown = {**dict.fromkeys(_OF_NETWORKS, domain.UNLIMITED), **shown}
        shown = {key: limit for key, limit in shown.items() if key not in _IN_GROUPS}
    return {"quota_class_set": shown if name is None else {"id": name, **shown}}
