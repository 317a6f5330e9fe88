# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/placements:simulate``: where servers would go, and what would be left."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import falcon

from accelsched import policies
from accelsched.api import resources
from accelsched.api.compute import flavor_schemas, server_create, server_schemas
from accelsched.api.deciding import Deciding
from accelsched.compute import images
from accelsched.scheduler.decider import DryRun
from accelsched.scheduler.pipeline import Selection

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "accelsched:placements:simulate"
_TEXT = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\x00-\x1f]+$"}

_REQUEST = resources.validator(
    {
        "type": "object",
        "properties": {
            "flavor": _TEXT,
            "count": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
            "image": _TEXT,
            "availability_zone": _TEXT,
            "hints": server_schemas.HINTS,
            "properties": flavor_schemas.SPECS,
            "project_id": _TEXT,
            "seed": _TEXT,
        },
        "required": ["flavor"],
        "additionalProperties": False,
    }
)


class Simulation:
    """Decides as a scheduler does, and claims nothing."""

    def __init__(self, services: Services, image_service: images.Images, deciding: Deciding) -> None:
        self._services = services
        self._images = image_service
        self._deciding = deciding

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show where servers of a flavor would go, what would be left, and why."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, _RULE, {})
        body = resources.body_of(req, _REQUEST)
        _, count = server_create.counts(
            {"min_count": 1, "max_count": body.get("count", 1)}, self._services.conf.api.max_servers_per_request
        )
        wanted = {"flavorRef": body["flavor"], "imageRef": body.get("image", "")}
        if "availability_zone" in body:
            wanted["availability_zone"] = body["availability_zone"]
        order = server_create.look_up(
            wanted,
            body.get("hints", {}),
            project_id=body.get("project_id", context.project_id or ""),
            context=context,
            services=self._services,
            image_service=self._images if "image" in body else None,
            extra_specs={key: str(value) for key, value in body.get("properties", {}).items()},
        )
        seed = body.get("seed") or secrets.token_hex(8)
        resp.media = {
            "placement": {"seed": seed, **_view(count, self._deciding.decider().dry_run(order.spec, count, seed))}
        }


def _view(count: int, dry_run: DryRun) -> dict[str, Any]:
    selections = dry_run.decision.selections
    by_host: dict[str, list[Selection]] = {}
    for selection in selections:
        by_host.setdefault(selection.host.name, []).append(selection)
    return {
        "count": count,
        "placed": len(selections),
        "hosts": [{"host": host, "servers": len(some), "devices": _devices(some)} for host, some in by_host.items()],
        "free": {name: dataclasses.asdict(room) for name, room in dry_run.rooms.items()},
        "explanation": dry_run.decision.explanation.to_dict(),
    }


def _devices(selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """Return what servers on one host take of each of its providers together, the host's own first."""
    found: dict[str, dict[str, Any]] = {}
    for selection in selections:
        names = {device["provider_uuid"]: device["provider_name"] for device in selection.devices}
        for uuid, amounts in selection.allocations.items():
            device = found.setdefault(
                uuid, {"provider_uuid": uuid, "provider_name": names[uuid], "servers": 0, "resources": {}}
            )
            device["servers"] += 1
            for name, amount in amounts.items():
                device["resources"][name] = device["resources"].get(name, 0) + amount
    return list(found.values())
