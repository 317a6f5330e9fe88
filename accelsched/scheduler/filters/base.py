# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a filter is: a mask over all hosts at once, or, by the adapter, a verdict on one host at a time."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from oslo_config import cfg

from accelsched.placement.picture import Mask
from accelsched.scheduler.attributes import HostState
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.table import Metadata


@dataclasses.dataclass(frozen=True)
class Shortfall:
    """Why hosts were removed, in words that do not name any, and which of them came closest."""

    reason: str
    most_free_on: str | None = None


class Filter(ABC):
    """Made once a process; must be a pure function of its arguments.

    :cvar once_per_request: whether placing servers of a request cannot change what this filter says of a host. When it
        can, the filter is asked again about each host that got one (``hosts.placed`` counts them)
    :cvar run_on_rebuild: whether it is asked when a server is built again on the host that it is on
    :cvar asked_when_forced: whether it is asked when an operator forced the host (``ZONE:HOST:NODE``)
    :cvar needs: what it reads of the facts besides hosts: see :class:`accelsched.scheduler.facts.Facts`
    """

    once_per_request: ClassVar[bool] = False
    run_on_rebuild: ClassVar[bool] = False
    asked_when_forced: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    def changes(self, hosts: Hosts, request: RequestSpec) -> bool:
        """Tell whether placing a server of this request may change what this filter says of the host that got it."""
        return not self.once_per_request

    def binds_others(self, hosts: Hosts, request: RequestSpec) -> bool:
        """Tell whether placing a server of this request may rule out hosts that did not get it.

        Then this filter is asked about all hosts again after each placement, instead of about one.
        """
        return False

    @abstractmethod
    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Return which hosts may be used: bool[len(hosts)]."""

    def reason(self, request: RequestSpec) -> str:
        """Say why this filter removes hosts, for explanations."""
        return f"{type(self).__name__} does not allow it"

    def shortfall(self, hosts: Hosts, request: RequestSpec) -> Shortfall:
        """Say why this filter removed some hosts; one that counts something says how much there was.

        :param hosts: those that were removed, one at least
        """
        return Shortfall(self.reason(request))


class HostFilter(Filter):
    """A filter written as a verdict on one host: what a filter ported from Nova becomes. Slow at thousands of hosts."""

    @abstractmethod
    def host_passes(self, host: HostState, request: RequestSpec) -> bool:
        """Tell whether this host may be used."""

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Ask for each host in turn: bool[len(hosts)]."""
        columns: dict[str, Any] = {}
        states = (HostState(hosts, index, columns) for index in range(len(hosts)))
        return np.fromiter((self.host_passes(state, request) for state in states), dtype=np.bool_, count=len(hosts))


class AggregateFilter(Filter):
    """A filter that looks at nothing of a host but its aggregates' metadata: asked once for hosts in the same ones."""

    once_per_request = True

    @abstractmethod
    def aggregates_pass(self, metadata: Metadata, request: RequestSpec) -> bool:
        """Tell whether hosts may be used whose aggregates have this metadata, merged."""

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Ask for each set of aggregates: bool[len(hosts)]."""
        return hosts.by_aggregates(lambda metadata: self.aggregates_pass(metadata, request), np.bool_)
