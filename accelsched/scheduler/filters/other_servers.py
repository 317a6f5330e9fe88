# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters that look where other servers are which the request names."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


def _with_servers(hosts: Hosts, uuids: list[str]) -> Mask:
    located = hosts.facts.located
    return hosts.named({located[uuid] for uuid in uuids if uuid in located})


class SameHostFilter(Filter):
    """Passes hosts with one of the servers of hint ``same_host``, at least."""

    once_per_request = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Look for the servers: bool[len(hosts)]."""
        uuids = request.hinted("same_host")
        return _with_servers(hosts, uuids) if uuids else np.ones(len(hosts), dtype=np.bool_)

    def reason(self, request: RequestSpec) -> str:
        """Name the servers."""
        return f"has none of the servers {', '.join(request.hinted('same_host')[:5])}"


class DifferentHostFilter(Filter):
    """Passes hosts with none of the servers of hint ``different_host``."""

    once_per_request = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Look for the servers: bool[len(hosts)]."""
        uuids = request.hinted("different_host")
        return ~_with_servers(hosts, uuids) if uuids else np.ones(len(hosts), dtype=np.bool_)

    def reason(self, request: RequestSpec) -> str:
        """Name the servers."""
        return f"has one of the servers {', '.join(request.hinted('different_host')[:5])}"
