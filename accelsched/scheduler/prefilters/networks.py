# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefilters that speak for ports and networks.

Servers have none in this release (there is no network service), so both let every request pass as it is. They are here
so that a configuration that names them loads, and are where ports will be looked at.
"""

from __future__ import annotations

from accelsched.placement.candidates import CandidateQuery
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.prefilters.base import Prefilter
from accelsched.scheduler.request import RequestSpec


class _NoPorts(Prefilter):
    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query as it is."""
        return query


class RoutedNetworksPrefilter(_NoPorts):
    """Nova's routed_networks_filter: aggregates of the segments of the request's networks."""


class RemoteManagedPortsPrefilter(_NoPorts):
    """Nova's remote_managed_ports_filter: COMPUTE_REMOTE_MANAGED_PORTS for ports on SmartNICs."""
