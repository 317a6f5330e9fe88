# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/servers/{id}/accelerators``: what a server has, and what it is given while it goes on."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.compute import accelerators, devices, servers
from accelsched.compute.accelerators import Chosen, Wanted, suffix_of
from accelsched.compute.servers import Shown
from accelsched.db.compute import Server
from accelsched.db.instance_actions import Origin
from accelsched.scheduler import request as scheduler_request

if TYPE_CHECKING:
    from accelsched.api.attaching import Attaching
    from accelsched.api.services import Services

_RULE = "accelsched:servers:accelerators:"
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
    def __init__(self, services: Services, attaching: Attaching) -> None:
        self._services = services
        self._attaching = attaching

    def _scope(self, req: falcon.Request, rule: str) -> str | None:
        return policies.scope(self._services.enforcer, resources.context_of(req), _RULE + rule)

    def _is_admin(self, req: falcon.Request) -> bool:
        return policies.allowed(self._services.enforcer, resources.context_of(req), "context_is_admin")


class Accelerators(_Resource):
    """All of one server."""

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
        extra_specs = _extra_specs(wanted, suffix_of(accelerator_id))
        scheduler_request.check_extra_specs(extra_specs)
        origin = Origin.of(resources.context_of(req))

        def look(session: Session) -> tuple[Server, Sequence[Wanted]]:
            server = accelerators.ready(session, uuid, project_id=scope, admin=admin)
            return server, [Wanted(accelerator_id, extra_specs)]

        def attach(session: Session, chosen: Sequence[Chosen]) -> list[tuple[str, str]]:
            return accelerators.attach(session, uuid, chosen, origin, project_id=scope, admin=admin)

        self._attaching.attach(look, attach)
        resp.status = falcon.HTTP_202
        resp.media = {"accelerator": {"id": accelerator_id, "state": accelerators.ATTACHING, "resources": _of(wanted)}}


class Accelerator(_Resource):
    """One that was attached to a server."""

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str, accelerator_id: str) -> None:
        """Have it detached."""
        scope, admin = self._scope(req, "detach"), self._is_admin(req)
        origin = Origin.of(resources.context_of(req))

        self._attaching.change(
            lambda session: accelerators.detach(session, uuid, [accelerator_id], origin, project_id=scope, admin=admin)
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
