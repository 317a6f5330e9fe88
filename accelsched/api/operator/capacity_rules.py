# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/resource_providers/{uuid}/capacity_rule``: how the classes of a provider share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy.orm import Session

from accelsched import policies
from accelsched.api import resources
from accelsched.placement import capacity_rules, partitioning

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "accelsched:capacity_rules:"

_REPLACEMENT = resources.validator(
    {
        "type": "object",
        "properties": {
            "resource_provider_generation": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
            "capacity_rule": partitioning.SCHEMA,
        },
        "required": ["resource_provider_generation", "capacity_rule"],
        "additionalProperties": False,
    }
)


class CapacityRule:
    """The capacity rule of one resource provider."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show the rule, and what comes of it just now."""
        self._require(req, "show")
        with self._services.db.snapshot() as session:
            resp.media = _view(capacity_rules.get(session, uuid))

    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Set the rule."""
        self._require(req, "update")
        body = resources.body_of(req, _REPLACEMENT)
        rule = partitioning.parse(body["capacity_rule"])

        def write(session: Session) -> capacity_rules.Stored:
            capacity_rules.put(session, uuid, rule, expected=body["resource_provider_generation"])
            return capacity_rules.get(session, uuid)

        resp.media = _view(self._services.db.transact(write))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Take the rule away."""
        self._require(req, "delete")
        self._services.db.transact(lambda session: capacity_rules.remove(session, uuid))
        resp.status = 204

    def _require(self, req: falcon.Request, action: str) -> None:
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + action, {})


def _view(stored: capacity_rules.Stored) -> dict[str, Any]:
    return {
        "resource_provider_generation": stored.provider.generation,
        "capacity_rule": None if stored.rule is None else stored.rule.document(),
        # What limits nothing is null; as a number it would be one that no JSON client needs to read exactly.
        "ceilings": {
            name: None if ceiling == partitioning.NO_LIMIT else ceiling for name, ceiling in stored.ceilings.items()
        },
        "positions": [
            {"consumer_uuid": consumer, "resource_class": position.resource_class, "start": position.start}
            for consumer, position in stored.positions
        ],
    }
