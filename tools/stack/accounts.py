# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who is known to Keystone, and what its catalog lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keystoneauth1 import adapter

from stack.identity import Keystone

REGION = "RegionOne"
SERVICE_PROJECT = "service"
USERS = {  # name: (project, roles)
    "accelsched": (SERVICE_PROJECT, ("admin", "service")),
    "glance": (SERVICE_PROJECT, ("service", "reader")),
    "demo": ("demo", ("member",)),
}


def catalog(image_url: str, accelsched_url: str) -> dict[str, tuple[str, str]]:
    """Return the catalog entries beside Keystone's own: service type to (service name, URL)."""
    return {
        "image": ("glance", image_url),
        "placement": ("placement", f"{accelsched_url}/placement"),
        "compute": ("compute", f"{accelsched_url}/compute/v2.1"),
        "accelerator": ("accelerator", f"{accelsched_url}/accelerator/v2"),
        "accelsched": ("accelsched", f"{accelsched_url}/v1"),
    }


def ensure(keystone: Keystone, entries: Mapping[str, tuple[str, str]]) -> int:
    """Make the projects, users, role assignments and catalog entries that are missing; correct URLs that differ.

    :param entries: as :func:`catalog` gives them
    :returns: how many things were made or changed
    """
    return _Accounts(keystone).ensure(entries)


class _Accounts:
    def __init__(self, keystone: Keystone) -> None:
        self._keystone = keystone
        self._identity = adapter.Adapter(
            keystone.session(), service_type="identity", endpoint_override=keystone.url, raise_exc=True
        )
        self._changes = 0

    def ensure(self, entries: Mapping[str, tuple[str, str]]) -> int:
        roles = self._by_name("roles")
        projects = self._by_name("projects")
        users = self._by_name("users")
        for user, (project, role_names) in USERS.items():
            if project not in projects:
                projects[project] = self._create("project", {"name": project, "domain_id": "default"})
            if user not in users:
                password = self._keystone.passwords.get(user)
                body = {
                    "name": user,
                    "domain_id": "default",
                    "password": password,
                    "default_project_id": projects[project]["id"],
                }
                users[user] = self._create("user", body)
            for role in role_names:
                self._grant(projects[project]["id"], users[user]["id"], roles[role]["id"])
        self._ensure_catalog(entries)
        return self._changes

    def _ensure_catalog(self, entries: Mapping[str, tuple[str, str]]) -> None:
        services = {service["type"]: service for service in self._list("services")}
        endpoints = {(e["service_id"], e["interface"]): e for e in self._list("endpoints")}
        for service_type, (name, url) in entries.items():
            if service_type not in services:
                services[service_type] = self._create("service", {"type": service_type, "name": name})
            service_id = services[service_type]["id"]
            for interface in ("public", "internal", "admin"):
                known = endpoints.get((service_id, interface))
                body = {"service_id": service_id, "interface": interface, "url": url, "region_id": REGION}
                if known is None:
                    self._create("endpoint", body)
                elif known["url"] != url:
                    self._identity.patch(f"/endpoints/{known['id']}", json={"endpoint": {"url": url}})
                    self._changes += 1

    def _grant(self, project: str, user: str, role: str) -> None:
        path = f"/projects/{project}/users/{user}/roles/{role}"
        if self._identity.head(path, raise_exc=False).status_code != 204:
            self._identity.put(path)
            self._changes += 1

    def _create(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._changes += 1
        made: dict[str, Any] = self._identity.post(f"/{kind}s", json={kind: dict(body)}).json()[kind]
        return made

    def _list(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._identity.get(f"/{kind}").json()[kind]
        return found

    def _by_name(self, kind: str) -> dict[str, dict[str, Any]]:
        return {item["name"]: item for item in self._list(kind)}
