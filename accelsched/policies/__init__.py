# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may do what: oslo.policy rules in code, overridable by the operator's policy file."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from oslo_config import cfg
from oslo_policy import policy

from accelsched import errors
from accelsched.context import RequestContext
from accelsched.policies import (
    accelerator,
    aggregates,
    base,
    flavors,
    hosts,
    key_pairs,
    operator,
    placement,
    quotas,
    server_groups,
    servers,
)

# A project that is nobody's: only a rule that does not ask for the project passes. None would do for a caller who has
# no project.
_ELSEWHERE = {"project_id": secrets.token_hex(16), "user_id": secrets.token_hex(16)}

_KEPT_S = 1.0
_MOST_KEPT = 10_000  # decisions


def list_rules() -> Iterable[policy.RuleDefault]:
    """Return every rule, for oslopolicy-sample-generator and the enforcer."""
    modules = (
        base,
        accelerator,
        aggregates,
        flavors,
        hosts,
        key_pairs,
        operator,
        placement,
        quotas,
        server_groups,
        servers,
    )
    return itertools.chain.from_iterable(module.RULES for module in modules)


class Enforcer(policy.Enforcer):
    """Keeps its decisions for a second, so that a change of the operator's policy file is seen within one.

    The requests of a moment are nearly all alike, and for each oslo.policy looks after its files and walks the rules.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._kept: dict[Hashable, bool] = {}
        self._kept_until = 0.0

    def decide(self, context: RequestContext, rule: str, target: Mapping[str, Any]) -> bool:
        """Tell whether the caller may do this to the target, whose values are texts.

        :raises oslo_policy.policy.PolicyNotRegistered: there is no such rule
        """
        now = time.monotonic()
        if now >= self._kept_until or len(self._kept) >= _MOST_KEPT:
            self._kept, self._kept_until = {}, now + _KEPT_S
        kept = self._kept  # what is decided by older rules goes where they went
        asked = (rule, *sorted(target.items()), *_credentials(context))
        verdict = kept.get(asked)
        if verdict is None:
            verdict = kept[asked] = bool(self.authorize(rule, dict(target), context, do_raise=False))
        return verdict


def _credentials(context: RequestContext) -> tuple[Hashable, ...]:
    """Return all that oslo.policy knows of the caller: the attributes of ``RequestContext.to_policy_values``."""
    return (
        context.user_id,
        context.user_domain_id,
        context.system_scope,
        context.domain_id,
        context.project_id,
        context.project_domain_id,
        tuple(context.roles),
        context.is_admin_project,
        context.service_user_id,
        context.service_user_domain_id,
        context.service_project_id,
        context.service_project_domain_id,
        tuple(context.service_roles),
    )


def enforcer(conf: cfg.ConfigOpts) -> Enforcer:
    """Return an enforcer that knows every rule; what no rule allows is denied.

    :raises accelsched.errors.ConfigurationError: when the operator's policy file is no policy file
    """
    made = Enforcer(conf)
    made.register_defaults(list(list_rules()))
    try:
        made.load_rules()
    except (
        ValueError,
        AttributeError,
        TypeError,
        cfg.Error,
    ) as exc:  # oslo.policy expects a mapping and does not check
        raise errors.ConfigurationError(f"[oslo_policy] policy_file: {' '.join(str(exc).split())}") from exc
    return made


def allowed(enforcer_: Enforcer, context: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> bool:
    """Tell whether the caller may do this.

    :param target: what the rule compares with, ``project_id`` above all; the caller's own when None
    """
    own = {"project_id": context.project_id or _ELSEWHERE["project_id"], "user_id": context.user_id}
    return enforcer_.decide(context, rule, own if target is None else target)


def scope(enforcer_: Enforcer, context: RequestContext, rule: str) -> str | None:
    """Return the project within which the caller may do this; None when in any.

    What is outside it is to be treated as not existing, rather than as forbidden.

    :raises accelsched.errors.ForbiddenError: when the caller may not do it even in the own project
    """
    if allowed(enforcer_, context, rule, _ELSEWHERE):
        return None
    require(enforcer_, context, rule)
    return context.project_id or ""


def require(enforcer_: Enforcer, context: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> None:
    """Refuse what the caller may not do.

    :raises accelsched.errors.ForbiddenError: naming the rule
    """
    if not allowed(enforcer_, context, rule, target):
        raise errors.ForbiddenError(f"Policy doesn't allow {rule} to be performed.")
