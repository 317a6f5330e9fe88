# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may do what, by persona."""

from __future__ import annotations

import os
from typing import Any

import pytest

from accelsched import conf as options
from accelsched import errors, policies
from accelsched.context import RequestContext


@pytest.fixture(scope="module")
def enforcer() -> Any:
    conf = options.new()
    conf([], default_config_files=[])
    return policies.enforcer(conf)


def who(*roles: str, **changes: Any) -> RequestContext:
    return RequestContext(**({"user_id": "u", "project_id": "own", "roles": list(roles)} | changes))


ADMIN, MEMBER, READER, NOBODY = who("admin"), who("member", "reader"), who("reader"), who()
OWN, OTHER = {"project_id": "own"}, {"project_id": "other"}


@pytest.mark.parametrize(
    ("rule", "context", "target", "may"),
    [
        ("os_compute_api:servers:create", MEMBER, OWN, True),
        ("os_compute_api:servers:create", READER, OWN, False),
        ("os_compute_api:servers:create", NOBODY, OWN, False),
        ("os_compute_api:servers:delete", MEMBER, OTHER, False),
        ("os_compute_api:servers:delete", ADMIN, OTHER, True),
        ("os_compute_api:servers:show", READER, OWN, True),
        ("os_compute_api:servers:show", READER, OTHER, False),
        ("os_compute_api:os-flavor-manage:create", MEMBER, OWN, False),
        ("os_compute_api:os-flavor-manage:create", ADMIN, OWN, True),
        ("accelsched:servers:explanation", READER, OTHER, False),
        ("no_such_rule_at_all", ADMIN, OWN, None),
    ],
)
def test_personas(enforcer, rule, context, target, may):
    if may is None:
        with pytest.raises(Exception, match="no_such_rule_at_all"):
            policies.allowed(enforcer, context, rule, target)
    else:
        assert policies.allowed(enforcer, context, rule, target) is may


def test_what_is_elsewhere_is_for_those_who_are_not_bound_to_a_project(enforcer):
    rule = "os_compute_api:servers:show"
    assert policies.scope(enforcer, ADMIN, rule) is None
    assert policies.scope(enforcer, READER, rule) == "own"
    for stranger in (NOBODY, who("reader", project_id=None), who("reader", project_id=None, domain_id="d")):
        with pytest.raises(errors.ForbiddenError):
            policies.scope(enforcer, stranger, rule)


def test_a_system_scoped_token_does_not_reach_into_projects(enforcer):
    system = who("admin", project_id=None, system_scope="all")
    assert not policies.allowed(enforcer, system, "os_compute_api:servers:create", OWN)


def test_a_kept_decision_is_of_this_caller_and_this_target_alone(enforcer):
    """Every value that a rule can compare with tells two callers or targets apart."""
    known = set(ADMIN.to_policy_values())
    callers = [ADMIN, who("admin", is_admin_project=False), who("member"), who("admin", service_roles=["admin"])]
    callers += [who("admin", **{name: "x"}) for name in known if name.endswith("_id") or name == "system_scope"]
    assert len({policies._credentials(caller) for caller in callers}) == len(callers) == len(known) + 1
    rule = "os_compute_api:servers:show"
    for _ in range(2):
        assert [policies.allowed(enforcer, READER, rule, target) for target in (OWN, OTHER)] == [True, False]
        assert policies.allowed(enforcer, ADMIN, rule, OTHER)


def test_a_changed_policy_file_counts_from_the_next_second_on(tmp_path, monkeypatch):
    file = tmp_path / "policy.yaml"
    file.write_text("os_compute_api:servers:show: '!'\n")
    conf = options.new()
    conf([], default_config_files=[])
    conf.set_override("policy_file", str(file), group="oslo_policy")
    made = policies.enforcer(conf)
    clock = [100.0]
    monkeypatch.setattr(policies.time, "monotonic", lambda: clock[0])
    assert not policies.allowed(made, READER, "os_compute_api:servers:show", OWN)
    file.write_text("os_compute_api:servers:show: '@'\n")
    os.utime(file, (4e9, 4e9))
    clock[0] += 1.0
    assert policies.allowed(made, READER, "os_compute_api:servers:show", OWN)


def test_every_rule_that_guards_an_operation_is_documented():
    for rule in policies.list_rules():
        if ":" in rule.name:
            assert rule.description
            assert rule.operations
            assert rule.scope_types == ["project"]
