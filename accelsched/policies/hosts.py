# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts, services and what else operators look at through the Compute API, by Nova's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, ANYBODY, PROJECT_READER_OR_ADMIN, rule

RULES = [
    rule("os_compute_api:os-hypervisors:list", ADMIN, "List hypervisors", ("GET", "/os-hypervisors")),
    rule(
        "os_compute_api:os-hypervisors:list-detail",
        ADMIN,
        "List hypervisors in detail",
        ("GET", "/os-hypervisors/detail"),
    ),
    rule("os_compute_api:os-hypervisors:show", ADMIN, "Show a hypervisor", ("GET", "/os-hypervisors/{hypervisor_id}")),
    rule(
        "os_compute_api:os-hypervisors:uptime",
        ADMIN,
        "Show a hypervisor's uptime",
        ("GET", "/os-hypervisors/{hypervisor_id}/uptime"),
    ),
    rule(
        "os_compute_api:os-hypervisors:search",
        ADMIN,
        "List the hypervisors of a hostname (until 2.53)",
        ("GET", "/os-hypervisors/{pattern}/search"),
    ),
    rule(
        "os_compute_api:os-hypervisors:servers",
        ADMIN,
        "List the servers of hypervisors (until 2.53)",
        ("GET", "/os-hypervisors/{pattern}/servers"),
    ),
    rule("os_compute_api:os-services:delete", ADMIN, "Forget a host", ("DELETE", "/os-services/{service_id}")),
    rule("os_compute_api:os-services:list", ADMIN, "List services", ("GET", "/os-services")),
    rule("os_compute_api:os-services:update", ADMIN, "Enable or disable a host", ("PUT", "/os-services/{service_id}")),
    rule(
        "os_compute_api:os-availability-zone:list",
        ANYBODY,
        "List availability zones",
        ("GET", "/os-availability-zone"),
    ),
    rule(
        "os_compute_api:os-availability-zone:detail",
        ADMIN,
        "List availability zones and their hosts",
        ("GET", "/os-availability-zone/detail"),
    ),
    rule(
        "os_compute_api:os-hypervisors:statistics",
        ADMIN,
        "Add up what hypervisors have",
        ("GET", "/os-hypervisors/statistics"),
    ),
    rule("os_compute_api:os-migrations:index", ADMIN, "List migrations", ("GET", "/os-migrations")),
    rule(
        "os_compute_api:os-server-external-events:create",
        ADMIN,
        "Tell of what happened to servers elsewhere",
        ("POST", "/os-server-external-events"),
    ),
    rule(
        "os_compute_api:os-simple-tenant-usage:list",
        ADMIN,
        "List what every project used",
        ("GET", "/os-simple-tenant-usage"),
    ),
    rule(
        "os_compute_api:os-simple-tenant-usage:show",
        PROJECT_READER_OR_ADMIN,
        "Show what a project used",
        ("GET", "/os-simple-tenant-usage/{project_id}"),
    ),
    rule("os_compute_api:extensions", ANYBODY, "List extensions", ("GET", "/extensions")),
    rule("os_compute_api:limits", ANYBODY, "Show the caller's limits", ("GET", "/limits")),
    rule("os_compute_api:limits:other_project", ADMIN, "Show another project's limits", ("GET", "/limits?tenant_id=")),
]
