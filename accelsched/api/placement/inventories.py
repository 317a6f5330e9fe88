# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/resource_providers/{uuid}/inventories``."""

from __future__ import annotations

import dataclasses
from typing import Any

import falcon

from accelsched import errors
from accelsched.api.placement import handler
from accelsched.api.placement.faults import CONCURRENT_UPDATE, Fault
from accelsched.api.placement.handler import body_validator, minor_of, serves
from accelsched.placement import inventories, providers
from accelsched.placement.inventories import MAX_UNIT, Amounts, InventoryInUseError, Stock
from accelsched.placement.providers import LockedProvider
from accelsched.policies import placement as rules

# From which minor version on:
_DELETE_ALL = 5
_ALL_RESERVED = 26

_FLOAT_MAX = 3.40282e38  # of a single-precision float, Placement's bound

RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "resource_provider_generation": {"type": "integer"},
        "total": {"type": "integer", "minimum": 1, "maximum": MAX_UNIT},
        "reserved": {"type": "integer", "minimum": 0, "maximum": MAX_UNIT},
        "min_unit": {"type": "integer", "minimum": 1, "maximum": MAX_UNIT},
        "max_unit": {"type": "integer", "minimum": 1, "maximum": MAX_UNIT},
        "step_size": {"type": "integer", "minimum": 1, "maximum": MAX_UNIT},
        "allocation_ratio": {"type": "number", "maximum": _FLOAT_MAX},
    },
    "required": ["total"],
    "additionalProperties": False,
}
REPLACEMENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "resource_provider_generation": {"type": "integer"},
        "inventories": {
            "type": "object",
            # Of any name: what is no class is found out later, when the generation has been looked at.
            "additionalProperties": RECORD,
            "maxProperties": handler.MANY,
        },
    },
    "required": ["resource_provider_generation", "inventories"],
    "additionalProperties": False,
}
_REPLACEMENT = body_validator(REPLACEMENT)
_CHANGE = body_validator({**RECORD, "required": ["total", "resource_provider_generation"]})
_ADDITION = body_validator(
    {
        **RECORD,
        "properties": {
            **RECORD["properties"],
            "resource_class": {"type": "string", "pattern": handler.CLASS_PATTERN, "maxLength": 255},
        },
        "required": ["total", "resource_class"],
    }
)


def amounts_of(record: dict[str, Any]) -> Amounts:
    """Return what a validated record says; JSON does not tell 4 from 4.0."""
    given = {name: int(value) for name, value in record.items() if name in _INTEGERS}
    if "allocation_ratio" in record:
        return Amounts(**given, allocation_ratio=float(record["allocation_ratio"]))
    return Amounts(**given)


_INTEGERS = frozenset(field.name for field in dataclasses.fields(Amounts)) - {"allocation_ratio"}


def _least_capacity(req: falcon.Request) -> int:
    return 0 if minor_of(req) >= _ALL_RESERVED else 1


class Inventories(handler.Resource):
    """``/resource_providers/{uuid}/inventories``."""

    @serves(rules.INVENTORIES + "list", gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List a provider's inventories."""
        with self.services.db.snapshot() as session:
            provider = providers.get(session, uuid)
            stocks = inventories.of_provider(session, provider.id)
        self._send(req, resp, provider, stocks)

    @serves(rules.INVENTORIES + "create", takes_json=True)
    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Add an inventory."""
        body = handler.body_of(req, _ADDITION, first=lambda: self.check_provider(uuid))
        name = body["resource_class"]
        amounts = amounts_of(body)
        provider = self.services.db.transact(
            lambda session: inventories.add(session, uuid, name, amounts, least_capacity=_least_capacity(req))
        )
        location = f"/resource_providers/{uuid}/inventories/{name}"
        handler.send(req, resp, _render_one(provider, amounts), status=201, location=location)

    @serves(rules.INVENTORIES + "update", takes_json=True)
    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Give a provider just these inventories."""
        body = handler.body_of(req, _REPLACEMENT, first=lambda: self.check_provider(uuid))
        wanted = {name: amounts_of(record) for name, record in body["inventories"].items()}
        expected = body["resource_provider_generation"]
        replacement = inventories.Replacement(uuid, wanted, expected, _least_capacity(req))
        provider, stocks = self.services.changes.write(replacement)
        self._send(req, resp, provider, stocks)

    @serves(rules.INVENTORIES + "delete", since=_DELETE_ALL, otherwise=405)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Take every inventory from a provider."""
        self.services.changes.write(inventories.Replacement(uuid, {}))
        handler.send(req, resp, status=204, cached=False)

    @staticmethod
    def _send(req: falcon.Request, resp: falcon.Response, provider: LockedProvider, stocks: dict[str, Stock]) -> None:
        shown = {
            "resource_provider_generation": provider.generation,
            "inventories": {name: dataclasses.asdict(stock.amounts) for name, stock in stocks.items()},
        }
        handler.send(req, resp, shown, modified=max((stock.updated_at for stock in stocks.values()), default=None))
        if not stocks:
            # Here, and only here, Placement says nothing rather than "now".
            resp.delete_header("last-modified")


class OneInventory(handler.Resource):
    """``/resource_providers/{uuid}/inventories/{resource_class}``."""

    @serves(rules.INVENTORIES + "show", gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str, resource_class: str) -> None:
        """Show one inventory."""
        with self.services.db.snapshot() as session:
            provider = providers.get(session, uuid)
            stock = inventories.of_provider(session, provider.id).get(resource_class)
        if stock is None:
            raise errors.NotFoundError(f"No inventory of class {resource_class} for {uuid}")
        handler.send(req, resp, _render_one(provider, stock.amounts), modified=stock.updated_at)

    @serves(rules.INVENTORIES + "update", takes_json=True)
    def on_put(self, req: falcon.Request, resp: falcon.Response, uuid: str, resource_class: str) -> None:
        """Change one inventory."""
        body = handler.body_of(req, _CHANGE, first=lambda: self.check_provider(uuid))
        amounts = amounts_of(body)
        provider = self.services.db.transact(
            lambda session: inventories.change(
                session,
                uuid,
                resource_class,
                amounts,
                expected=body["resource_provider_generation"],
                least_capacity=_least_capacity(req),
            )
        )
        handler.send(req, resp, _render_one(provider, amounts))

    @serves(rules.INVENTORIES + "delete")
    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str, resource_class: str) -> None:
        """Take one inventory from a provider."""
        try:
            self.services.db.transact(lambda session: inventories.remove(session, uuid, resource_class))
        except InventoryInUseError as exc:
            # The code that Placement gives here, and only here.
            raise Fault(409, str(exc), code=CONCURRENT_UPDATE) from exc
        handler.send(req, resp, status=204, cached=False)


def _render_one(provider: LockedProvider, amounts: Amounts) -> dict[str, Any]:
    return {**dataclasses.asdict(amounts), "resource_provider_generation": provider.generation}
