# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Quotas, by Nova's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, ANYBODY, PROJECT_READER_OR_ADMIN, rule

SETS = "os_compute_api:os-quota-sets:"
CLASSES = "os_compute_api:os-quota-class-sets:"

_PATH = "/os-quota-sets/{project_id}"
_CLASS_PATH = "/os-quota-class-sets/{quota_class}"

RULES = [
    rule(SETS + "show", PROJECT_READER_OR_ADMIN, "Show a project's quotas", ("GET", _PATH)),
    rule(SETS + "defaults", ANYBODY, "Show the quotas that projects have by default", ("GET", _PATH + "/defaults")),
    rule(SETS + "detail", PROJECT_READER_OR_ADMIN, "Show a project's quotas and use", ("GET", _PATH + "/detail")),
    rule(SETS + "update", ADMIN, "Change a project's quotas", ("PUT", _PATH)),
    rule(SETS + "delete", ADMIN, "Set a project's quotas back to the defaults", ("DELETE", _PATH)),
    rule(CLASSES + "show", ADMIN, "Show the quotas of a class", ("GET", _CLASS_PATH)),
    rule(CLASSES + "update", ADMIN, "Change the quotas of a class", ("PUT", _CLASS_PATH)),
]
