# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/usages`` and ``/resource_providers/{uuid}/usages``."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched import errors
from accelsched.api.placement import handler, microversion
from accelsched.api.placement.allocation_schemas import CONSUMER_TYPES
from accelsched.api.placement.handler import minor_of, query_validator, serves
from accelsched.api.placement.query import Query
from accelsched.placement import providers, usages
from accelsched.policies import placement as rules

_SINCE = 9
_ID = {"type": "string", "minLength": 1, "maxLength": 255}
_OF_PROJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"project_id": _ID, "user_id": _ID},
    "required": ["project_id"],
    "additionalProperties": False,
}
_BY_TYPE: dict[str, Any] = {
    **_OF_PROJECT,
    "properties": {
        **_OF_PROJECT["properties"],
        "consumer_type": {**_ID, "pattern": r"^([A-Z0-9_]+\Z|all|unknown\Z)"},
    },
}
_GET = {_SINCE: query_validator(_OF_PROJECT), CONSUMER_TYPES: query_validator(_BY_TYPE)}


def _project_of(req: falcon.Request) -> str | None:
    try:
        return Query.of(req).last("project_id")
    except errors.InvalidError:
        return None


class ProviderUsages(handler.Resource):
    """``/resource_providers/{uuid}/usages``."""

    @serves(rules.PROVIDER_USAGES, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show what is used of a provider."""
        with self.services.db.snapshot() as session:
            provider = providers.get(session, uuid)
            used = usages.of_provider(session, provider.id)
        handler.send(req, resp, {"resource_provider_generation": provider.generation, "usages": used})


class Usages(handler.Resource):
    """``/usages``."""

    @serves(rules.USAGES, since=_SINCE, gives_json=True, project_of=_project_of)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show what a project, or one user of it, uses."""
        minor = minor_of(req)
        asked = Query.of(req)
        asked.check(microversion.pick(_GET, minor))
        project_id, user_id = asked.last("project_id") or "", asked.last("user_id")
        with self.services.db.snapshot() as session:
            if minor < CONSUMER_TYPES:
                used: dict[str, Any] = dict(usages.of_project(session, project_id, user_id))
            else:
                groups = usages.of_project_by_type(session, project_id, user_id, asked.last("consumer_type"))
                used = {
                    name: {**group.resources, "consumer_count": group.consumer_count} for name, group in groups.items()
                }
        handler.send(req, resp, {"usages": used})
