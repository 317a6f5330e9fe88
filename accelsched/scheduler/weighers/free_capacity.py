# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer hosts by what they have left: Nova's RAM, CPU and disk weighers."""

from __future__ import annotations

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import NovaWeigher


class _FreeWeigher(NovaWeigher):
    resource_class: str

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return what is free on each host: float64[len(hosts)]."""
        return hosts.free(self.resource_class).astype(np.float64)


class RAMWeigher(_FreeWeigher):
    """Free memory."""

    override = "ram_weight_multiplier"
    resource_class = "MEMORY_MB"


class CPUWeigher(_FreeWeigher):
    """Free virtual CPUs."""

    override = "cpu_weight_multiplier"
    resource_class = "VCPU"


class DiskWeigher(_FreeWeigher):
    """Free disk."""

    override = "disk_weight_multiplier"
    resource_class = "DISK_GB"
