# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A request that names its host, or hosts that it must not go to."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class ForcedHostFilter(Filter):
    """Passes the host that the request names (host, hypervisor_hostname), never one that it says to ignore."""

    once_per_request = True
    run_on_rebuild = True
    asked_when_forced = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Compare the names: bool[len(hosts)]."""
        passes = ~hosts.named(request.ignore_hosts) if request.ignore_hosts else np.ones(len(hosts), dtype=np.bool_)
        if request.host is not None:
            passes &= hosts.named([request.host])
        if request.hypervisor_hostname is not None:
            table = hosts.facts.table
            passes &= hosts.named(table.hostnames.get(request.hypervisor_hostname, ()))
        return passes

    def reason(self, request: RequestSpec) -> str:
        """Name the host."""
        named = request.host or request.hypervisor_hostname
        ignored = f"hosts to be ignored: {', '.join(request.ignore_hosts[:5])}"
        return f"the request names host {named}" if named or not request.ignore_hosts else ignored
