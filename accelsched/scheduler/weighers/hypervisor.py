# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer hosts by their hypervisor, or by where a server comes from."""

from __future__ import annotations

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import NovaWeigher


class HypervisorVersionWeigher(NovaWeigher):
    """Newer hypervisors first, by default."""

    override = "hypervisor_version_weight_multiplier"

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return the version of each host's hypervisor as a number: float64[len(hosts)]."""
        return hosts.by_hypervisor(lambda hypervisor: hypervisor.get("version", 0), np.float64)


class CrossCellWeigher(NovaWeigher):
    """Nova's preference for moves within a cell. There are no cells here: every move is within one."""

    override = "cross_cell_move_weight_multiplier"

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return the same for all: float64[len(hosts)]."""
        return np.zeros(len(hosts))
