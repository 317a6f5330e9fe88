# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v2/accelerator_requests``: what servers have by their device profiles. They come and go with the servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import falcon
import os_resource_classes as orc

from accelsched import errors, policies
from accelsched.accelerator import requests
from accelsched.api import resources

if TYPE_CHECKING:
    from accelsched.accelerator.requests import AcceleratorRequest
    from accelsched.api.services import Services

_RULE = "cyborg:arq:"
_MOST = 1000  # servers that a list looks at
_WHOLE_FUNCTION = re.compile(rf"{orc.FPGA}|{orc.PGPU}|{orc.PCI_DEVICE}|CUSTOM_PCI_.*")
_BY_SERVERS = (
    "Accelerator requests are made, bound and deleted with their servers: create a server with a flavor that has "
    "accel:device_profile, or attach an accelerator with 'openstack accel server add accelerator'."
)


class Requests:
    """All of them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the caller's, or for operators everybody's; of one server where the query says so."""
        context = resources.context_of(req)
        project_id = policies.scope(self._services.enforcer, context, _RULE + "get_all")
        state = req.get_param("bind_state")
        if state not in (None, "resolved"):
            raise errors.InvalidError("bind_state: there is only 'resolved'")
        with self._services.db.reading() as session:
            found = requests.list_(session, project_id=project_id, server_uuid=req.get_param("instance"), most=_MOST)
        if state is not None and any(one.state == "Initial" for one in found):
            raise falcon.HTTPLocked(description="Not all of them are resolved yet.")
        sees_hosts = policies.allowed(self._services.enforcer, context, _RULE + "hosts")
        resp.media = {"arqs": [_view(one, sees_hosts) for one in found]}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Refuse."""
        raise errors.ForbiddenError(_BY_SERVERS)

    on_patch = on_post
    on_delete = on_post


class Request:
    """One."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show it."""
        context = resources.context_of(req)
        project_id = policies.scope(self._services.enforcer, context, _RULE + "get_one")
        with self._services.db.reading() as session:
            found = requests.get(session, uuid, project_id=project_id)
        # Not wrapped, as Cyborg has it.
        resp.media = _view(found, policies.allowed(self._services.enforcer, context, _RULE + "hosts"))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Refuse."""
        raise errors.ForbiddenError(_BY_SERVERS)

    on_delete = on_patch


def _view(request: AcceleratorRequest, sees_hosts: bool) -> dict[str, Any]:
    address, kind = requests.address_of(request), None
    if address is not None:
        kind = "PCI" if _WHOLE_FUNCTION.fullmatch(request.resource_class) else "MDEV"
    return {
        "uuid": request.uuid,
        "state": request.state,
        "device_profile_name": request.profile,
        "device_profile_group_id": request.group,
        "instance_uuid": request.server.uuid,
        "project_id": request.server.project_id,
        "device_rp_uuid": request.provider_uuid,
        "attach_handle_type": kind,
        "hostname": request.server.host if sees_hosts else None,
        "attach_handle_info": address if sees_hosts else None,
    }
