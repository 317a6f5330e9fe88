# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Flavors, by Nova's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, PROJECT_READER_OR_ADMIN, rule

MANAGE = "os_compute_api:os-flavor-manage:"
SPECS = "os_compute_api:os-flavor-extra-specs:"
ACCESS = "os_compute_api:os-flavor-access"

_SPECS_PATH = "/flavors/{flavor_id}/os-extra_specs"

RULES = [
    rule(MANAGE + "create", ADMIN, "Create a flavor", ("POST", "/flavors")),
    rule(MANAGE + "update", ADMIN, "Change a flavor's description", ("PUT", "/flavors/{flavor_id}")),
    rule(MANAGE + "delete", ADMIN, "Delete a flavor", ("DELETE", "/flavors/{flavor_id}")),
    rule(
        SPECS + "index",
        PROJECT_READER_OR_ADMIN,
        "List a flavor's extra specs",
        ("GET", _SPECS_PATH),
        ("GET", "/flavors/detail"),
        ("GET", "/servers/detail"),
    ),
    rule(SPECS + "show", PROJECT_READER_OR_ADMIN, "Show one extra spec", ("GET", _SPECS_PATH + "/{key}")),
    rule(SPECS + "create", ADMIN, "Add extra specs", ("POST", _SPECS_PATH)),
    rule(SPECS + "update", ADMIN, "Change one extra spec", ("PUT", _SPECS_PATH + "/{key}")),
    rule(SPECS + "delete", ADMIN, "Remove one extra spec", ("DELETE", _SPECS_PATH + "/{key}")),
    rule(ACCESS, ADMIN, "List who may use a flavor", ("GET", "/flavors/{flavor_id}/os-flavor-access")),
    rule(ACCESS + ":add_tenant_access", ADMIN, "Let a project use a flavor", ("POST", "/flavors/{flavor_id}/action")),
    rule(
        ACCESS + ":remove_tenant_access",
        ADMIN,
        "Stop a project from using a flavor",
        ("POST", "/flavors/{flavor_id}/action"),
    ),
]
