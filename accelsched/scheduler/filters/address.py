# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts near an address."""

from __future__ import annotations

import ipaddress

import numpy as np

from accelsched import errors
from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec

_PREFIX = "/24"


class SimpleCIDRAffinityFilter(Filter):
    """Passes hosts whose address is in the network of hint ``build_near_host_ip`` with the prefix of hint ``cidr``.

    A host that does not tell its address is near nothing.
    """

    once_per_request = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Compare addresses: bool[len(hosts)]."""
        near = network(request)
        if near is None:
            return np.ones(len(hosts), dtype=np.bool_)
        addresses = hosts.facts.table.addresses
        inside = (
            address is not None and address.version == near.version and address in near
            for address in (addresses[index] for index in hosts.at.tolist())
        )
        return np.fromiter(inside, dtype=np.bool_, count=len(hosts))

    def reason(self, request: RequestSpec) -> str:
        """Name the network."""
        return f"not in {network(request)}"


def network(request: RequestSpec) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network that a request wants to be in, None when it does not say.

    :raises accelsched.errors.InvalidError: when the hints are no network
    """
    address = request.hints.get("build_near_host_ip")
    if address is None:
        return None
    prefix = request.hints.get("cidr", _PREFIX)
    try:
        return ipaddress.ip_network(f"{address}{prefix}", strict=False)
    except ValueError as exc:
        raise errors.InvalidError(f"scheduler hints build_near_host_ip and cidr: {exc}") from exc
