# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/resource_providers/{uuid}/aggregates``."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched.api.placement import handler, microversion
from accelsched.api.placement.handler import body_validator, minor_of, serves
from accelsched.placement import aggregates, providers
from accelsched.placement.providers import LockedProvider
from accelsched.policies import placement as rules

_SINCE = 1
_GENERATIONS = 19

_LIST: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "format": "uuid"},
    "uniqueItems": True,
    "maxItems": handler.MANY,
}
_PUT = {
    _SINCE: body_validator(_LIST),
    _GENERATIONS: body_validator(
        {
            "type": "object",
            "properties": {"aggregates": _LIST, "resource_provider_generation": {"type": "integer"}},
            "required": ["aggregates", "resource_provider_generation"],
            "additionalProperties": False,
        }
    ),
}


class Aggregates(handler.Resource):
    """``/resource_providers/{uuid}/aggregates``."""

    @serves(rules.AGGREGATES + "list", since=_SINCE, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List the aggregates that a provider is in."""
        with self.services.db.snapshot() as session:
            provider = providers.get(session, uuid)
            found = aggregates.of_provider(session, provider.id)
        _send(req, resp, provider, found)

    @serves(rules.AGGREGATES + "update", since=_SINCE, takes_json=True)
    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Put a provider into just these aggregates."""
        minor = minor_of(req)
        body = handler.body_of(req, microversion.pick(_PUT, minor), first=lambda: self.check_provider(uuid))
        if minor >= _GENERATIONS:
            wanted, expected = body["aggregates"], body["resource_provider_generation"]
        else:
            wanted, expected = body, None
        provider, found = self.services.db.transact(
            lambda session: aggregates.replace(session, uuid, wanted, expected=expected)
        )
        _send(req, resp, provider, found)


def _send(req: falcon.Request, resp: falcon.Response, provider: LockedProvider, found: list[str]) -> None:
    shown: dict[str, Any] = {"aggregates": found}
    if minor_of(req) >= _GENERATIONS:
        shown["resource_provider_generation"] = provider.generation
    handler.send(req, resp, shown)
