# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a project has and may have, and collections that stay empty in this release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.compute import microversion, queries
from accelsched.compute import quotas

if TYPE_CHECKING:
    from accelsched.api.services import Services


class Limits:
    """``/limits``: how much a project may have, and how much of it it has."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show limits and use of the caller's project, or for an admin of another."""
        context = resources.context_of(req)
        policies.require(self._services.enforcer, context, "os_compute_api:limits")
        params, minor = queries.parameters(req), microversion.version_of(req).minor
        if minor >= 75:
            queries.check_known(params, "tenant_id")
        project_id = queries.last(params, "tenant_id") or context.project_id or ""
        if project_id != context.project_id:
            policies.require(self._services.enforcer, context, "os_compute_api:limits:other_project")
        with self._services.db.reading() as session:
            most = quotas.limits(session, project_id, quotas.defaults(self._services.conf))
            used = quotas.used(session, project_id)
        absolute: dict[str, int] = {
            "maxTotalInstances": most["instances"],
            "maxTotalCores": most["cores"],
            "maxTotalRAMSize": most["ram"],
            "maxTotalKeypairs": most["key_pairs"],
            "maxServerMeta": most["metadata_items"],
            "maxServerGroups": most["server_groups"],
            "maxServerGroupMembers": most["server_group_members"],
            "totalInstancesUsed": used["instances"],
            "totalCoresUsed": used["cores"],
            "totalRAMUsed": used["ram"],
            "totalServerGroupsUsed": used["server_groups"],
        }
        if minor < 36:
            absolute |= {"maxSecurityGroups": 0, "maxSecurityGroupRules": 0, "totalSecurityGroupsUsed": 0}
            absolute |= {"maxTotalFloatingIps": 0, "totalFloatingIpsUsed": 0}
        if minor < 39:
            absolute["maxImageMeta"] = most["metadata_items"]
        if minor < 57:
            absolute |= {"maxPersonality": 0, "maxPersonalitySize": 0}
        resp.media = {"limits": {"rate": [], "absolute": absolute}}


class Empty:
    """A collection that has nothing in it."""

    def __init__(self, services: Services, rule: str, key: str) -> None:
        """Say what is listed.

        :param rule: policy of the list
        :param key: of the answer
        """
        self._services = services
        self._rule = rule
        self._body: dict[str, Any] = {key: []}

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List nothing."""
        policies.require(self._services.enforcer, resources.context_of(req), self._rule)
        resp.media = self._body

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say that nothing can be put there yet."""
        policies.require(self._services.enforcer, resources.context_of(req), self._rule)
        raise falcon.HTTPNotImplemented(description="This release cannot create one.")

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, id_: str) -> None:
        """Find nothing."""
        policies.require(self._services.enforcer, resources.context_of(req), self._rule)
        raise errors.NotFoundError(f"{id_[:100]} could not be found.")
