# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/servers/{id}/programming``: how far the programming of a server's FPGA regions is, and how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from accelsched import policies
from accelsched.api import resources
from accelsched.compute import programming
from accelsched.db.compute import ProgrammingJob

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "accelsched:servers:programming"


class Programming:
    """The jobs of one server."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show every job, the newest first; hosts and what executables said to operators only."""
        context = resources.context_of(req)
        scope = policies.scope(self._services.enforcer, context, _RULE)
        with self._services.db.reading() as session:
            jobs = programming.of_server(session, uuid, project_id=scope)
        whole = policies.allowed(self._services.enforcer, context, f"{_RULE}:hosts")
        resp.media = {"programming": [_view(job, whole=whole) for job in jobs]}


def _view(job: ProgrammingJob, *, whole: bool) -> dict[str, Any]:
    told = dict(job.told)
    fault = told.get("fault")
    if whole:
        return {**told, "host": job.host}
    del told["provider_name"]
    return {**told, "fault": fault and {"message": fault["message"]}}
