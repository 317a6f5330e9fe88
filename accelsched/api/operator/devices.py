# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/devices``: the devices of all hosts, what is wrong with them, and which may take something new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import falcon

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.compute import devices

if TYPE_CHECKING:
    from accelsched.api.services import Services
    from accelsched.compute.devices import HostDevice
    from accelsched.placement.device_status import Status

_RULE = "accelsched:devices:"
_PARAMETERS = frozenset({"host", "status", "marker", "limit"})
_STATUSES = frozenset({"enabled", "disabled", "unhealthy", "lost"})
_MOST = 1000

_CHANGE = resources.validator(
    {
        "type": "object",
        "properties": {"disabled": {"type": "boolean"}},
        "required": ["disabled"],
        "additionalProperties": False,
    }
)


class Devices:
    """All devices, in pages."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List devices, of one host or status where the query says so."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "list", {})
        if unknown := req.params.keys() - _PARAMETERS:
            raise errors.InvalidError(
                f"Unknown parameter {min(unknown)!r}; there are {', '.join(sorted(_PARAMETERS))}."
            )
        status = req.get_param("status")
        if status is not None and status not in _STATUSES:
            raise errors.InvalidError(f"status {status[:50]!r} is none of {', '.join(sorted(_STATUSES))}")
        limit = req.get_param_as_int("limit", min_value=1, max_value=_MOST, default=_MOST)
        with self._services.db.snapshot() as session:
            found = devices.page(
                session,
                host=req.get_param("host"),
                status=cast("Status | None", status),
                marker=req.get_param("marker"),
                limit=limit + 1,
            )
        resp.media = {
            "devices": [_view(one) for one in found[:limit]],
            "next_marker": found[limit - 1].device.uuid if len(found) > limit else None,
        }


class Device:
    """One device."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show it."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "list", {})
        with self._services.db.snapshot() as session:
            resp.media = {"device": _view(devices.get(session, uuid))}

    def on_patch(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Let nothing new onto it, or let it take something again."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE + "update", {})
        change = devices.disable if resources.body_of(req, _CHANGE)["disabled"] else devices.enable
        resp.media = {"device": _view(self._services.db.transact(lambda session: change(session, uuid)))}


def _view(found: HostDevice) -> dict[str, Any]:
    device = found.device
    return {
        "uuid": device.uuid,
        "name": device.name,
        "host": found.host,
        "status": device.status,
        "disabled": "disabled" in device.marks,
        "lost": "lost" in device.marks,
        "unhealthy": "unhealthy" in device.marks,
        "fault": found.fault,
        "inventories": {
            name: {"total": stock.total, "reserved": stock.reserved, "used": stock.used}
            for name, stock in device.inventories.items()
        },
        "consumers": list(device.consumers),
    }
