# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v2/accelerator_requests``: what servers have by their device profiles, and what is bound to them besides."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import falcon
import os_resource_classes as orc

from accelsched import errors, policies
from accelsched.accelerator import own_requests, requests
from accelsched.api import resources
from accelsched.api.accelerator import microversion, request_schemas
from accelsched.db.instance_actions import Origin

if TYPE_CHECKING:
    from accelsched.accelerator.own_requests import Binding
    from accelsched.accelerator.requests import AcceleratorRequest
    from accelsched.api.attaching import Attaching
    from accelsched.api.services import Services

_RULE = "cyborg:arq:"
_MOST = 1000  # servers, and requests made by themselves, that a list looks at
_WHOLE_FUNCTION = re.compile(rf"{orc.FPGA}|{orc.PGPU}|{orc.PCI_DEVICE}|CUSTOM_PCI_.*")


class _Resource:
    def __init__(self, services: Services, attaching: Attaching) -> None:
        self._services = services
        self._attaching = attaching

    def _scope(self, req: falcon.Request, rule: str) -> str | None:
        return policies.scope(self._services.enforcer, resources.context_of(req), _RULE + rule)

    def _sees_hosts(self, req: falcon.Request) -> bool:
        return policies.allowed(self._services.enforcer, resources.context_of(req), _RULE + "hosts")

    def _as_who(self, req: falcon.Request, rule: str) -> dict[str, Any]:
        """Return within which project a caller may do something, and whether it is an operator."""
        admin = policies.allowed(self._services.enforcer, resources.context_of(req), "context_is_admin")
        return {"project_id": self._scope(req, rule), "admin": admin}

    def _patch(self, req: falcon.Request, resp: falcon.Response, only: str | None = None) -> None:
        """Bind requests, or unbind them.

        :param only: the one that the path names
        """
        who, origin = self._as_who(req, "update"), Origin.of(resources.context_of(req))
        change = request_schemas.change_of(req, microversion.minor_of(req))
        if only is not None and set(change.uuids) != {only}:
            raise errors.InvalidError("the body is about another accelerator request than the path")
        if change.binding is None:
            self._attaching.change(
                lambda session: own_requests.release(session, change.uuids, origin, forget=False, **who)
            )
        else:
            self._bind(change.binding, origin, who)
        resp.status = falcon.HTTP_202

    def _bind(self, binding: Binding, origin: Origin, who: Mapping[str, Any]) -> None:
        plugs = {uuid: str(uuids.uuid4()) for uuid in binding.devices}
        self._attaching.attach(
            lambda session: own_requests.to_bind(session, binding, plugs, **who),
            lambda session, chosen: own_requests.bind(session, binding, plugs, chosen, origin, **who),
        )


class Requests(_Resource):
    """All of them."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the caller's, or for operators everybody's; of one server where the query says so."""
        project_id = self._scope(req, "get_all")
        state, server_uuid = req.get_param("bind_state"), req.get_param("instance")
        if state not in (None, "resolved"):
            raise errors.InvalidError("bind_state: there is only 'resolved'")
        with self._services.db.reading() as session:
            found = requests.list_(session, project_id=project_id, server_uuid=server_uuid, most=_MOST)
        if state is not None:
            resolved = [one for one in found if one.state in requests.RESOLVED]
            if server_uuid is not None and len(resolved) < len(found):
                raise falcon.HTTPLocked(description="Not all of them are resolved yet.")
            found = resolved
        sees_hosts = self._sees_hosts(req)
        resp.media = {"arqs": [_view(one, sees_hosts) for one in found]}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make one for each unit that a device profile asks for."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, _RULE + "create")
        wanted = resources.body_of(req, request_schemas.CREATE)
        group = wanted.get("device_profile_group_id")
        made = self._services.db.transact(
            lambda session: own_requests.create(
                session,
                project_id=context.project_id or "",
                profile_name=wanted["device_profile_name"],
                group=None if group is None else int(group),
                image_uuid=wanted.get("image_uuid"),
                most=self._services.conf.quota.accelerator_requests,
            )
        )
        resp.status = falcon.HTTP_201
        resp.media = {"arqs": [_view(one, sees_hosts=False) for one in made]}

    def on_patch(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Bind or unbind some."""
        self._patch(req, resp)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Delete those that ``arqs`` names, or all that are bound to the server that ``instance`` names."""
        who, origin = self._as_who(req, "delete"), Origin.of(resources.context_of(req))
        listed, server_uuid = req.get_param("arqs"), req.get_param("instance")
        if bool(listed) == bool(server_uuid):
            raise errors.InvalidError("Provide either arqs, a list of UUIDs, or instance, a UUID")
        if listed:
            chosen = request_schemas.uuids_of(listed)
            self._attaching.change(lambda session: own_requests.release(session, chosen, origin, forget=True, **who))
        else:
            instance = str(server_uuid)
            self._attaching.change(lambda session: own_requests.remove_of_server(session, instance, origin, **who))
        resp.status = falcon.HTTP_204


class Request(_Resource):
    """One."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show it."""
        project_id = self._scope(req, "get_one")
        with self._services.db.reading() as session:
            found = requests.get(session, uuid, project_id=project_id)
        # Not wrapped, as Cyborg has it.
        resp.media = _view(found, self._sees_hosts(req))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Bind or unbind it, as openstacksdk asks for that."""
        self._patch(req, resp, only=request_schemas.uuid_of(uuid))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Delete it, as openstacksdk asks for that."""
        who, origin = self._as_who(req, "delete"), Origin.of(resources.context_of(req))
        chosen = [request_schemas.uuid_of(uuid)]
        self._attaching.change(lambda session: own_requests.release(session, chosen, origin, forget=True, **who))
        resp.status = falcon.HTTP_204


def _view(request: AcceleratorRequest, sees_hosts: bool) -> dict[str, Any]:
    address, kind = requests.address_of(request) if request.state == "Bound" else None, None
    if address is not None:
        kind = "PCI" if _WHOLE_FUNCTION.fullmatch(request.resource_class) else "MDEV"
    server = request.server
    return {
        "uuid": request.uuid,
        "state": request.state,
        "device_profile_name": request.profile,
        "device_profile_group_id": request.group,
        "instance_uuid": None if server is None else server.uuid,
        "project_id": request.project_id,
        "device_rp_uuid": request.provider_uuid,
        "attach_handle_type": kind,
        "hostname": server.host if server is not None and sees_hosts else None,
        "attach_handle_info": address if sees_hosts else None,
    }
