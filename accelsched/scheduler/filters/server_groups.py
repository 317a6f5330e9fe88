# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters that keep the members of a server group together, or apart."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class ServerGroupAntiAffinityFilter(Filter):
    """With policy anti-affinity, passes hosts with fewer members than ``max_server_per_host``, which is 1 if not said.

    Servers of the same request count as soon as they are placed.
    """

    def changes(self, hosts: Hosts, request: RequestSpec) -> bool:
        """Return whether the group's policy is anti-affinity."""
        return hosts.facts.group is not None and hosts.facts.group.policy == "anti-affinity"

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Count members: bool[len(hosts)]."""
        group = hosts.facts.group
        if group is None or group.policy != "anti-affinity":
            return np.ones(len(hosts), dtype=np.bool_)
        room: Mask = hosts.group_members < group.most
        return room

    def reason(self, request: RequestSpec) -> str:
        """Name the group."""
        return f"has as many members of server group {request.hints.get('group')} as it may"


class ServerGroupAffinityFilter(Filter):
    """With policy affinity, passes the hosts that have members; all while no host has any.

    So the first server of a request binds the others to its host.
    """

    def changes(self, hosts: Hosts, request: RequestSpec) -> bool:
        """Return whether the group's policy is affinity."""
        return self.binds_others(hosts, request)

    def binds_others(self, hosts: Hosts, request: RequestSpec) -> bool:
        """Return whether the group's policy is affinity."""
        return hosts.facts.group is not None and hosts.facts.group.policy == "affinity"

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Look for members, on all hosts, not only on these: bool[len(hosts)]."""
        group = hosts.facts.group
        if group is None or group.policy != "affinity":
            return np.ones(len(hosts), dtype=np.bool_)
        occupied: Mask = hosts.group_members > 0
        if group.members.any() or hosts.any_placed:
            return occupied
        return np.ones(len(hosts), dtype=np.bool_)

    def reason(self, request: RequestSpec) -> str:
        """Name the group."""
        return f"has no member of server group {request.hints.get('group')}, and other hosts have"
