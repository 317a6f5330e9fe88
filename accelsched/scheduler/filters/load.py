# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters that keep a host from getting too many servers, or too many at the same time."""

from __future__ import annotations

from abc import abstractmethod

from accelsched.placement.picture import Floats, Ints, Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class _Bounded(Filter):
    option: str
    what: str

    def _most(self, hosts: Hosts) -> int | Floats:
        """Return how many a host may have."""
        return int(self.conf.filter_scheduler[self.option])

    @abstractmethod
    def _number(self, hosts: Hosts) -> Ints:
        """Return how many each host has: int64[len(hosts)]."""

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Compare what each host has with what it may have: bool[len(hosts)]."""
        below: Mask = self._number(hosts) < self._most(hosts)
        return below

    def reason(self, request: RequestSpec) -> str:
        """Name the bound."""
        return f"{self.what}: {self.option} is {self.conf.filter_scheduler[self.option]}"


class _OfAggregates(_Bounded):
    def _most(self, hosts: Hosts) -> int | Floats:
        return hosts.least(self.option, float(self.conf.filter_scheduler[self.option]))

    def reason(self, request: RequestSpec) -> str:
        """Name the bound."""
        return f"{super().reason(request)}, or what the host's aggregates say"


class IoOpsFilter(_Bounded):
    """Passes hosts that build fewer servers than ``max_io_ops_per_host``."""

    option = "max_io_ops_per_host"
    what = "builds as many servers as it may"
    needs = frozenset({"io_ops"})

    def _number(self, hosts: Hosts) -> Ints:
        return hosts.num_io_ops


class NumInstancesFilter(_Bounded):
    """Passes hosts that have fewer servers than ``max_instances_per_host``."""

    option = "max_instances_per_host"
    what = "has as many servers as it may"
    needs = frozenset({"servers"})

    def _number(self, hosts: Hosts) -> Ints:
        return hosts.num_instances


class AggregateIoOpsFilter(_OfAggregates, IoOpsFilter):
    """As IoOpsFilter, with the bound from the host's aggregates where they have one."""


class AggregateNumInstancesFilter(_OfAggregates, NumInstancesFilter):
    """As NumInstancesFilter, with the bound from the host's aggregates where they have one."""
