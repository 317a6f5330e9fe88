# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The personas that the other rules are made of: admin everywhere, member and reader in their own project."""

from __future__ import annotations

from oslo_policy import policy

ADMIN = "rule:context_is_admin"
PROJECT_MEMBER_OR_ADMIN = "rule:project_member_or_admin"
PROJECT_READER_OR_ADMIN = "rule:project_reader_or_admin"
ANYBODY = "@"

RULES = [
    policy.RuleDefault("context_is_admin", "role:admin", description="Operators of the whole deployment."),
    policy.RuleDefault(
        "project_member_api",
        "role:member and project_id:%(project_id)s",
        description="Users who may change their project's servers.",
    ),
    policy.RuleDefault(
        "project_reader_api",
        # Keystone adds reader to member; noauth2 does not.
        "(role:reader or role:member) and project_id:%(project_id)s",
        description="Users who may look at their project's servers.",
    ),
    policy.RuleDefault("project_member_or_admin", "rule:project_member_api or rule:context_is_admin"),
    policy.RuleDefault("project_reader_or_admin", "rule:project_reader_api or rule:context_is_admin"),
]


def rule(
    name: str, check: str, description: str, *operations: tuple[str, str], scopes: tuple[str, ...] = ("project",)
) -> policy.DocumentedRuleDefault:
    """Return a documented rule.

    :param operations: (method, path) pairs that the rule guards
    """
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=check,
        description=description,
        operations=[{"method": method, "path": path} for method, path in operations],
        scope_types=list(scopes),
    )
