# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/reshaper``."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched.api.placement import allocation_schemas, faults, handler, inventories, microversion
from accelsched.api.placement.allocations import change_of
from accelsched.api.placement.faults import Fault
from accelsched.api.placement.handler import body_validator, minor_of, serves
from accelsched.placement import reshaping
from accelsched.placement.providers import ProviderNotFoundError
from accelsched.policies import placement as rules

_SINCE = 30


def _schema(minor: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "inventories": {
                "type": "object",
                "minProperties": 1,
                "patternProperties": {handler.UUID_KEY_PATTERN: inventories.REPLACEMENT},
                "additionalProperties": False,
            },
            "allocations": allocation_schemas.of_consumers(minor, at_least=0),
        },
        "required": ["inventories", "allocations"],
        "additionalProperties": False,
    }


_POST = {
    minor: body_validator(_schema(minor))
    for minor in (_SINCE, allocation_schemas.MAPPINGS, allocation_schemas.CONSUMER_TYPES)
}


class Reshaper(handler.Resource):
    """``/reshaper``."""

    @serves(rules.RESHAPE, since=_SINCE, takes_json=True)
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Change inventories, and the allocations from them, all or nothing."""
        minor = minor_of(req)
        body = handler.body_of(req, microversion.pick(_POST, minor))
        wanted = {
            uuid: reshaping.Replacement(
                generation=replacement["resource_provider_generation"],
                inventories={
                    name: inventories.amounts_of(record) for name, record in replacement["inventories"].items()
                },
            )
            for uuid, replacement in body["inventories"].items()
        }
        changes = [change_of(uuid, held, minor) for uuid, held in body["allocations"].items()]
        try:
            self.services.db.transact(lambda session: reshaping.reshape(session, wanted, changes))
        except ProviderNotFoundError as exc:
            raise Fault(400, f"In inventories: {exc}", code=faults.PROVIDER_NOT_FOUND) from exc
        handler.send(req, resp, status=204, cached=False)
