# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer hosts that have members of the request's server group, or that have none: the soft policies."""

from __future__ import annotations

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import NovaWeigher


class _SoftWeigher(NovaWeigher):
    policy: str
    sign: float

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return members, counted for or against a host, if the group has the policy: float64[len(hosts)]."""
        group = hosts.facts.group
        if group is None or group.policy != self.policy:
            return np.zeros(len(hosts))
        return self.sign * hosts.group_members.astype(np.float64)


class ServerGroupSoftAffinityWeigher(_SoftWeigher):
    """Policy soft-affinity: the more members a host has, the better."""

    override = "soft_affinity_weight_multiplier"
    policy = "soft-affinity"
    sign = 1.0


class ServerGroupSoftAntiAffinityWeigher(_SoftWeigher):
    """Policy soft-anti-affinity: the fewer members a host has, the better."""

    override = "soft_anti_affinity_weight_multiplier"
    policy = "soft-anti-affinity"
    sign = -1.0
