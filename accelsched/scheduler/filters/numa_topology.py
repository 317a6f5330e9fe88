# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts whose NUMA nodes have room for the server's."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter, Shortfall
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.numa import narrow, near
from accelsched.scheduler.request import RequestSpec


class NUMATopologyFilter(Filter):
    """Each of the server's NUMA nodes fits on another node of the host: dedicated and shared CPUs, memory, pages.

    A server with one node also needs free devices of its PCI aliases there, where ``required`` or ``legacy`` says so.
    All else about devices is decided with the choice of devices. A server is never put where it does not fit, with this
    filter or without: it saves trying hosts one by one, and says what is short.
    """

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Compare what the server's nodes ask for with what each host's have left: bool[len(hosts)]."""
        numa = request.numa()
        if numa is None:
            return np.ones(len(hosts), dtype=np.bool_)
        near_enough = near.enough(hosts, request) if request.pci and len(numa.nodes) == 1 else None
        ratios = hosts.ratio("VCPU"), hosts.ratio("MEMORY_MB")
        return narrow.mask(hosts.numa, hosts.numa_rows, numa, *ratios, among=near_enough)

    def reason(self, request: RequestSpec) -> str:
        """Say what is compared."""
        return "the host's NUMA nodes have no room for the server's"

    def shortfall(self, hosts: Hosts, request: RequestSpec) -> Shortfall:
        """Say what is short on the node that comes closest."""
        numa = request.numa()
        if numa is None:
            return Shortfall(self.reason(request))
        reason, on = narrow.shortfall(hosts.numa, hosts.numa_rows, numa)
        if on is None:
            return Shortfall(reason)
        index, node = on
        name = hosts.take([index]).rows[0].name
        return Shortfall(reason, name if node is None else f"{name} node {node}")
