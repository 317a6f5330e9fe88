# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/servers/{id}/explanation``: why a server went where it went, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import falcon

from accelsched import policies
from accelsched.api import resources
from accelsched.compute import decisions
from accelsched.scheduler import explanation

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "accelsched:servers:explanation"


class Explanation:
    """The decisions about one server's request."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show the decision that counts, with what it gave to this server."""
        context = resources.context_of(req)
        scope = policies.scope(self._services.enforcer, context, _RULE)
        with self._services.db.reading() as session:
            told = decisions.explain(session, uuid, project_id=scope)
        if not policies.allowed(self._services.enforcer, context, f"{_RULE}:hosts"):
            told = explanation.without_hosts(told, told["server"]["project_id"])
        resp.media = {"explanation": told}
