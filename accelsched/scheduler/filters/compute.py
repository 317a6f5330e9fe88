# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts whose agent is alive and enabled."""

from __future__ import annotations

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class ComputeFilter(Filter):
    """Passes hosts that are enabled, not forced down, and were heard of within service_down_time."""

    once_per_request = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Return which hosts are in service: bool[len(hosts)]."""
        alive: Mask = hosts.silent_s <= self.conf.scheduler.service_down_time
        return alive & ~hosts.disabled & ~hosts.forced_down

    def reason(self, request: RequestSpec) -> str:
        """Say what out of service means."""
        return f"disabled, forced down, or silent for more than {self.conf.scheduler.service_down_time} s"
