# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/agents``: the agents of all hosts, which are alive, and which version of our RPC each understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon
from sqlalchemy import select
from sqlalchemy.orm import defer

from accelsched import errors, policies, wire
from accelsched.api import resources
from accelsched.compute import hosts
from accelsched.db.compute import Host, as_iso

if TYPE_CHECKING:
    from accelsched.api.services import Services

_PARAMETERS = frozenset({"host", "marker", "limit"})
_MOST = 1000


class Agents:
    """All agents, in pages."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List agents in the order of their hosts' names."""
        policies.require(self._services.enforcer, resources.context_of(req), "accelsched:agents:list", {})
        if unknown := req.params.keys() - _PARAMETERS:
            raise errors.InvalidError(
                f"Unknown parameter {min(unknown)!r}; there are {', '.join(sorted(_PARAMETERS))}."
            )
        limit = req.get_param_as_int("limit", min_value=1, max_value=_MOST, default=_MOST)
        # What a host reported may be long, and is nobody's business here.
        query = select(Host).options(defer(Host.reported)).order_by(Host.name).limit(limit + 1)
        if marker := req.get_param("marker"):
            query = query.where(Host.name > marker)
        if host := req.get_param("host"):
            query = query.where(Host.name == host)
        with self._services.db.reading() as session:
            found = session.scalars(query).all()
            resp.media = {
                "agents": [self._view(one) for one in found[:limit]],
                "next_marker": found[limit - 1].name if len(found) > limit else None,
            }

    def _view(self, host: Host) -> dict[str, Any]:
        return {
            "host": host.name,
            "agent": host.agent,
            "state": "up" if hosts.is_up(host, self._services.conf.scheduler.service_down_time) else "down",
            "forced_down": host.forced_down,
            "disabled": host.disabled,
            "rpc_version": host.rpc_version,
            "outdated": not hosts.understands(host.rpc_version, wire.AGENT_VERSION),
            "simulated": host.simulated,
            "last_seen_at": as_iso(host.last_seen_at),
        }
