# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/allocations`` and ``/resource_providers/{uuid}/allocations``."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched.api.placement import allocation_schemas as schemas
from accelsched.api.placement import handler, microversion
from accelsched.api.placement.handler import minor_of, serves
from accelsched.placement import allocations, consumers, providers
from accelsched.placement.allocations import ConsumerHoldings
from accelsched.placement.claims import ANY_GENERATION, AnyGeneration, Claim, ConsumerAllocation
from accelsched.policies import placement as rules


class Allocations(handler.Resource):
    """``/allocations``."""

    @serves(rules.ALLOCATIONS + "manage", since=schemas.SEVERAL, takes_json=True)
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Allocate for several consumers, all or none."""
        minor = minor_of(req)
        body = handler.body_of(req, microversion.pick(schemas.POST, minor))
        changes = [change_of(consumer_uuid, wanted, minor) for consumer_uuid, wanted in body.items()]
        self.services.claims.write(Claim(changes))
        handler.send(req, resp, status=204, cached=False)


class ConsumerAllocations(handler.Resource):
    """``/allocations/{consumer_uuid}``."""

    @serves(rules.ALLOCATIONS + "list", gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, consumer_uuid: str) -> None:
        """Show what a consumer holds."""
        with self.services.db.snapshot() as session:
            held = allocations.of_consumer(session, consumer_uuid)
        handler.send(req, resp, _render(held, minor_of(req)), modified=held.updated_at)

    @serves(rules.ALLOCATIONS + "update", takes_json=True)
    def on_put(self, req: falcon.Request, resp: falcon.Response, consumer_uuid: str) -> None:
        """Allocate for a consumer, instead of what it held."""
        minor = minor_of(req)
        uuid = handler.canonical_uuid(consumer_uuid)
        body = handler.body_of(req, microversion.pick(schemas.PUT, minor))
        self.services.claims.write(Claim([change_of(uuid, body, minor)]))
        handler.send(req, resp, status=204, cached=False)

    @serves(rules.ALLOCATIONS + "delete")
    def on_delete(self, req: falcon.Request, resp: falcon.Response, consumer_uuid: str) -> None:
        """Take everything from a consumer."""
        self.services.db.transact(lambda session: allocations.remove(session, consumer_uuid))
        handler.send(req, resp, status=204, cached=False)


class ProviderAllocations(handler.Resource):
    """``/resource_providers/{uuid}/allocations``."""

    @serves(rules.PROVIDER_ALLOCATIONS, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List what is allocated from a provider."""
        with self.services.db.snapshot() as session:
            provider = providers.get(session, uuid)
            held = allocations.of_provider(session, provider.id)
        shown: dict[str, dict[str, Any]] = {
            consumer: {"resources": share.resources} for consumer, share in held.shares.items()
        }
        if minor_of(req) >= schemas.CONSUMER_GENERATIONS:
            for consumer, share in held.shares.items():
                shown[consumer]["consumer_generation"] = share.generation
        document = {"allocations": shown, "resource_provider_generation": provider.generation}
        handler.send(req, resp, document, modified=held.updated_at)


def change_of(consumer_uuid: str, body: dict[str, Any], minor: int) -> ConsumerAllocation:
    """Return what a validated body says that a consumer shall hold."""
    if minor < schemas.BY_PROVIDER:
        wanted = {item["resource_provider"]["uuid"]: item["resources"] for item in body["allocations"]}
    else:
        wanted = {uuid: item["resources"] for uuid, item in body["allocations"].items()}
    generation: int | AnyGeneration | None = ANY_GENERATION
    if minor >= schemas.CONSUMER_GENERATIONS:
        generation = body["consumer_generation"]
    return ConsumerAllocation(
        consumer_uuid=consumer_uuid,
        project_id=body.get("project_id", consumers.UNKNOWN_ID),
        user_id=body.get("user_id", consumers.UNKNOWN_ID),
        allocations={
            uuid: {name: int(amount) for name, amount in resources.items()} for uuid, resources in wanted.items()
        },
        consumer_type=body.get("consumer_type"),
        generation=generation,
    )


def _render(held: ConsumerHoldings, minor: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "allocations": {
            uuid: {"resources": share.resources, "generation": share.generation} for uuid, share in held.shares.items()
        }
    }
    if held.consumer is None or not held.shares:
        return shown
    if minor >= schemas.BY_PROVIDER:
        shown["project_id"] = held.consumer.project_id
        shown["user_id"] = held.consumer.user_id
    if minor >= schemas.CONSUMER_GENERATIONS:
        shown["consumer_generation"] = held.consumer.generation
    if minor >= schemas.CONSUMER_TYPES:
        shown["consumer_type"] = held.consumer.consumer_type
    return shown
