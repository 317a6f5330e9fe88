# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer hosts by how many servers they have, build, or failed to build."""

from __future__ import annotations

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import NovaWeigher


class IoOpsWeigher(NovaWeigher):
    """Servers that are being built: with a negative multiplier, the default, hosts that build fewer are preferred."""

    override = "io_ops_weight_multiplier"
    needs = frozenset({"io_ops"})

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return how many servers are being built on each host: float64[len(hosts)]."""
        return hosts.num_io_ops.astype(np.float64)


class NumInstancesWeigher(NovaWeigher):
    """Servers: a positive multiplier packs, a negative one spreads."""

    override = "num_instances_weight_multiplier"
    needs = frozenset({"servers"})

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return how many servers each host has: float64[len(hosts)]."""
        return hosts.num_instances.astype(np.float64)


class BuildFailureWeigher(NovaWeigher):
    """Builds that failed on the host since the last that succeeded: the more, the later its turn."""

    override = "build_failure_weight_multiplier"

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return the failures of each host, negated: float64[len(hosts)]."""
        negated: Floats = -hosts.failed_builds
        return negated
