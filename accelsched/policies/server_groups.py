# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Server groups, by Nova's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN, rule

GROUPS = "os_compute_api:os-server-groups:"

RULES = [
    rule(GROUPS + "index", PROJECT_READER_OR_ADMIN, "List server groups", ("GET", "/os-server-groups")),
    rule(GROUPS + "index:all_projects", ADMIN, "List every project's server groups", ("GET", "/os-server-groups")),
    rule(GROUPS + "show", PROJECT_READER_OR_ADMIN, "Show a server group", ("GET", "/os-server-groups/{group_id}")),
    rule(GROUPS + "create", PROJECT_MEMBER_OR_ADMIN, "Create a server group", ("POST", "/os-server-groups")),
    rule(
        GROUPS + "delete", PROJECT_MEMBER_OR_ADMIN, "Delete a server group", ("DELETE", "/os-server-groups/{group_id}")
    ),
]
