# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/os-server-external-events``: what other services tell of servers. Nothing here waits for any of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy import select

from accelsched import policies
from accelsched.api import resources
from accelsched.api.compute import microversion
from accelsched.db.compute import Server

if TYPE_CHECKING:
    from accelsched.api.services import Services

LOG = logging.getLogger(__name__)

_NEEDS_TAG = frozenset({"volume-extended", "volume-reimaged"})
_NAMES = (
    (1, ["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"]),
    (51, ["volume-extended"]),
    (76, ["power-update"]),
    (82, ["accelerator-request-bound"]),
    (93, ["volume-reimaged"]),
)


def _schema(names: list[str]) -> Any:
    event = {
        "type": "object",
        "properties": {
            "server_uuid": {"type": "string", "format": "uuid", "maxLength": 36},
            "name": {"enum": names},
            "status": {"enum": ["failed", "completed", "in-progress"]},
            "tag": {"type": "string", "maxLength": 255},
        },
        "required": ["server_uuid", "name"],
        "additionalProperties": False,
    }
    return resources.validator(
        {
            "type": "object",
            "properties": {"events": {"type": "array", "minItems": 1, "maxItems": 1000, "items": event}},
            "required": ["events"],
            "additionalProperties": False,
        }
    )


_CREATE = [
    (since, _schema([name for other, names in _NAMES if other <= since for name in names])) for since, _ in _NAMES
]


class ExternalEvents:
    """Answers each event as Nova does: 200 when a host could be told, 404, 400 or 422 when not."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take events."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, "os_compute_api:os-server-external-events:create", {})
        minor = microversion.version_of(req).minor
        schema = [schema for since, schema in _CREATE if since <= minor][-1]
        events = resources.body_of(req, schema)["events"]
        uuids = {event["server_uuid"] for event in events}
        with self._services.db.reading() as session:
            rows = session.execute(
                select(Server.uuid, Server.host).where(Server.uuid.in_(uuids), Server.deleted_at.is_(None))
            )
            hosts = {uuid: host for uuid, host in rows}  # noqa: C416 - a row is no pair to a type checker
        answered = [_answer(event, hosts) for event in events]
        if all(event["code"] != 200 for event in answered):
            raise falcon.HTTPNotFound(description="No instances found for any event")
        resp.status = falcon.HTTP_200 if all(event["code"] == 200 for event in answered) else falcon.HTTP_207
        resp.media = {"events": answered}


def _answer(event: dict[str, Any], hosts: dict[str, str | None]) -> dict[str, Any]:
    code = 200
    if event["server_uuid"] not in hosts:
        code = 404
    elif event["name"] in _NEEDS_TAG and "tag" not in event:
        code = 400
    elif hosts[event["server_uuid"]] is None:
        code = 422
    LOG.info("event %s of server %s: %d", event["name"], event["server_uuid"], code)
    return {**event, "status": "completed" if code == 200 else "failed", "code": code}
