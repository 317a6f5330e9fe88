# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/servers/{id}/accelerators``: what a server has, and what it is given while it goes on."""

from __future__ import annotations

import secrets
import uuid as uuids
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors, policies, wire
from accelsched.api import resources
from accelsched.api.compute.servers import hint
from accelsched.api.operator.deciding import Deciding
from accelsched.compute import accelerators, devices, servers
from accelsched.compute.accelerators import Chosen
from accelsched.compute.servers import Shown
from accelsched.db.compute import Server
from accelsched.db.instance_actions import Origin
from accelsched.failpoints import Point, reach
from accelsched.scheduler import request as scheduler_request

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "accelsched:servers:accelerators:"
_ATTEMPTS = 5  # at devices that others were quicker with
_NAME = {"type": "string", "pattern": "^[A-Z0-9_]{1,255}$"}
_TRAITS = {"type": "array", "items": _NAME, "maxItems": 64}
_ID = {"type": "string", "format": "uuid"}
_REQUEST = resources.validator(
    {
        "type": "object",
        "properties": {
            "accelerator": {
                "type": "object",
                "properties": {
                    "resource_class": _NAME,
                    "required": _TRAITS,
                    "forbidden": _TRAITS,
                    "function_id": _ID,
                    "bitstream_id": _ID,
                },
                "required": ["resource_class"],
                "additionalProperties": False,
            }
        },
        "required": ["accelerator"],
        "additionalProperties": False,
    }
)


class _Resource:
    def __init__(self, services: Services) -> None:
        self._services = services

    def _scope(self, req: falcon.Request, rule: str) -> str | None:
        return policies.scope(self._services.enforcer, resources.context_of(req), _RULE + rule)

    def _is_admin(self, req: falcon.Request) -> bool:
        return policies.allowed(self._services.enforcer, resources.context_of(req), "context_is_admin")

    def _change(self, change: Callable[[Session], tuple[str, str] | None]) -> None:
        """Change what a server is to have, in a transaction, and tell its agent.

        :param change: returns (agent, host) to tell
        """

        def write(session: Session) -> tuple[str, str] | None:
            told = change(session)
            reach(Point.API_ACTION_WRITTEN)
            return told

        told = self._services.db.transact(write)
        reach(Point.API_ACTION_COMMITTED)
        if told is not None:
            agent, host = told
            hint("sync", lambda: self._services.agents.sync(agent, [host]))


class Accelerators(_Resource):
    """All of one server."""

    def __init__(self, services: Services, deciding: Deciding) -> None:
        super().__init__(services)
        self._deciding = deciding

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List what a server has and is to have; what it has by its flavor has no id."""
        scope = self._scope(req, "list")
        names = policies.allowed(self._services.enforcer, resources.context_of(req), f"{_RULE}hosts")
        with self._services.db.reading() as session:
            shown = servers.get(session, uuid, project_id=scope)
            resp.media = {"accelerators": _views(shown, names=names)}

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Claim an accelerator on the server's host, and have it attached."""
        scope, admin = self._scope(req, "attach"), self._is_admin(req)
        wanted = resources.body_of(req, _REQUEST)["accelerator"]
        if wanted["resource_class"] in scheduler_request.HOST_CLASSES:
            raise errors.InvalidError(f"{wanted['resource_class']} is a part of the server's size, no accelerator")
        accelerator_id = str(uuids.uuid4())
        extra_specs = _extra_specs(wanted, f"_{accelerator_id}")
        scheduler_request.check_extra_specs(extra_specs)
        origin = Origin.of(resources.context_of(req))

        def attach(session: Session, chosen: Chosen) -> tuple[str, str] | None:
            return accelerators.attach(session, uuid, chosen, origin, project_id=scope, admin=admin)

        for attempt in range(_ATTEMPTS):
            server = self._services.db.transact(
                lambda session: accelerators.ready(session, uuid, project_id=scope, admin=admin)
            )
            chosen = self._choose(server, accelerator_id, extra_specs)
            try:
                self._change(lambda session: attach(session, chosen))  # noqa: B023 - called here
                break
            except errors.CapacityExceededError:
                if attempt == _ATTEMPTS - 1:
                    raise
        resp.status = falcon.HTTP_202
        resp.media = {"accelerator": {"id": accelerator_id, "state": accelerators.ATTACHING, "resources": _of(wanted)}}

    def _choose(self, server: Server, accelerator_id: str, extra_specs: dict[str, str]) -> Chosen:
        """Choose a device on a server's host as a scheduler does.

        :raises accelsched.errors.ConflictError: when there is none
        """
        flavor: wire.FlavorSpec = {
            **{"name": server.flavor["name"], "vcpus": 0, "ram_mb": 0, "disk_gb": 0},  # type: ignore[typeddict-item]
            "extra_specs": extra_specs,
        }
        spec = scheduler_request.build(flavor, None, project_id=server.project_id, host=server.host)
        decision = self._deciding.decider().decide(spec, 1, secrets.token_hex(8))
        if not decision.selections:
            raise errors.ConflictError(
                f"The host of instance {server.uuid} has no such accelerator for it: {decision.explanation.failure}"
            )
        (selection,) = decision.selections
        devices = [device for device in selection.devices if device["group"] == f"_{accelerator_id}"]
        if any(device["provider_uuid"] == server.node_uuid for device in devices):
            raise errors.ConflictError("What is asked for is given by the host itself, not by a device")
        amounts = {device["provider_uuid"]: device["resources"] for device in devices}
        return Chosen(accelerator_id, selection.host.name, extra_specs, devices, amounts)


class Accelerator(_Resource):
    """One that was attached to a server."""

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str, accelerator_id: str) -> None:
        """Have it detached."""
        scope, admin = self._scope(req, "detach"), self._is_admin(req)
        origin = Origin.of(resources.context_of(req))
        self._change(
            lambda session: accelerators.detach(session, uuid, accelerator_id, origin, project_id=scope, admin=admin)
        )
        resp.status = falcon.HTTP_202


def _of(wanted: dict[str, Any]) -> dict[str, int]:
    return {wanted["resource_class"]: 1}


def _extra_specs(wanted: dict[str, Any], suffix: str) -> dict[str, str]:
    """Return what a flavor would say to ask for the same."""
    told = {f"resources{suffix}:{name}": str(amount) for name, amount in _of(wanted).items()}
    for meaning in ("required", "forbidden"):
        told |= {f"trait{suffix}:{trait}": meaning for trait in wanted.get(meaning, [])}
    for kind in ("function_id", "bitstream_id"):
        if kind in wanted:
            told[f"accel{suffix}:{kind}"] = wanted[kind]
    return told


def _views(shown: Shown, *, names: bool) -> list[dict[str, Any]]:
    server = shown.server
    reasons = {fault.provider_uuid: fault.reason for fault in devices.faults_of(server, shown.host)}
    views = []
    for device in server.devices:
        if device["provider_uuid"] == server.node_uuid:
            continue  # CPUs, memory and disk
        plug = device.get("plug", {"id": None, "state": accelerators.ATTACHED})
        view = {"id": plug["id"], "state": plug["state"], "resources": device["resources"]}
        view["provider_uuid"] = device["provider_uuid"]
        view["fault"] = reasons.get(device["provider_uuid"])
        views.append({**view, "provider_name": device["provider_name"]} if names else view)
    return views
