# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-server-groups``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.compute import quotas
from accelsched.compute import server_groups as domain
from accelsched.policies.server_groups import GROUPS

if TYPE_CHECKING:
    from accelsched.api.services import Services

_HARD = ["affinity", "anti-affinity"]
_ALL = [*_HARD, "soft-affinity", "soft-anti-affinity"]
_NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\s\x00-\x1f](.*[^\s\x00-\x1f])?$"}


def _schema(required: str, **properties: Any) -> Any:
    group = {
        "type": "object",
        "properties": {"name": _NAME, **properties},
        "required": ["name", required],
        "additionalProperties": False,
    }
    return resources.validator(
        {
            "type": "object",
            "properties": {"server_group": group},
            "required": ["server_group"],
            "additionalProperties": False,
        }
    )


def _one_of(names: list[str]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": 1, "items": {"enum": names}}


_RULES = {
    "type": "object",
    "properties": {
        "max_server_per_host": {
            "type": ["integer", "string"],
            "pattern": "^[1-9][0-9]{0,8}$",
            "minimum": 1,
            "maximum": 2**31 - 1,
        }
    },
    "additionalProperties": False,
}
_CREATE = [
    (1, _schema("policies", policies=_one_of(_HARD))),
    (15, _schema("policies", policies=_one_of(_ALL))),
    (64, _schema("policy", policy={"enum": _ALL}, rules=_RULES)),
]


class ServerGroups:
    """``/os-server-groups``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List groups."""
        context, enforcer = resources.context_of(req), self._services.enforcer
        policies.require(enforcer, context, GROUPS + "index")
        params = queries.parameters(req)
        if microversion.version_of(req).minor >= 75:
            queries.check_known(params, "all_projects", "limit", "offset")
        # Nova takes any value, an empty one too; who may not see all projects sees the own one.
        everybody = "all_projects" in params and policies.allowed(enforcer, context, GROUPS + "index:all_projects")
        limit = queries.limit(params, self._services.conf.api.max_limit)
        offset = queries.number(params, "offset") or 0
        with self._services.db.reading() as session:
            project_id = None if everybody else context.project_id or ""
            found = domain.list_page(session, project_id=project_id, limit=limit, offset=offset)
        resp.media = {"server_groups": [_view(shown, req) for shown in found]}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a group."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, GROUPS + "create")
        minor = microversion.version_of(req).minor
        schema = [schema for since, schema in _CREATE if since <= minor][-1]
        wanted = resources.body_of(req, schema)["server_group"]
        policy = wanted["policy"] if minor >= 64 else wanted["policies"][0]
        most = wanted.get("rules", {}).get("max_server_per_host")
        if wanted.get("rules") and policy != "anti-affinity":
            raise errors.InvalidError("Only anti-affinity policy supports rules.")
        project_id, defaults = context.project_id or "", quotas.defaults(self._services.conf)

        def write(session: Session) -> domain.Shown:
            quotas.admit_server_group(session, project_id, defaults)
            return domain.create(
                session,
                project_id=project_id,
                user_id=context.user_id or "",
                name=wanted["name"],
                policy=policy,
                max_server_per_host=None if most is None else int(most),
            )

        resp.media = {"server_group": _view(self._services.db.transact(write), req)}

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Show a group."""
        scope = policies.scope(self._services.enforcer, resources.context_of(req), GROUPS + "show")
        with self._services.db.reading() as session:
            resp.media = {"server_group": _view(domain.get(session, id_, project_id=scope), req)}

    def on_delete_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Delete a group."""
        scope = policies.scope(self._services.enforcer, resources.context_of(req), GROUPS + "delete")
        self._services.db.transact(lambda session: domain.remove(session, id_, project_id=scope))
        resp.status = falcon.HTTP_204


def _view(shown: domain.Shown, req: falcon.Request) -> dict[str, Any]:
    group, minor = shown.group, microversion.version_of(req).minor
    view: dict[str, Any] = {"id": group.uuid, "name": group.name, "members": list(shown.members)}
    if minor >= 13:
        view |= {"project_id": group.project_id, "user_id": group.user_id}
    if minor < 64:
        return view | {"policies": [group.policy], "metadata": {}}
    rules = {} if group.max_server_per_host is None else {"max_server_per_host": group.max_server_per_host}
    return view | {"policy": group.policy, "rules": rules}
