# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts with as many free PCI devices as the flavor asks for by alias."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter, Shortfall
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.numa import near
from accelsched.scheduler.request import RequestSpec


class PciPassthroughFilter(Filter):
    """For each alias in ``pci_passthrough:alias``, the host has that many free devices of its class and traits.

    The devices themselves are chosen with the host, as of every other class, and a server never goes where they do not
    suffice. This filter counts them beforehand.
    """

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Count free devices: bool[len(hosts)]."""
        enough = np.ones(len(hosts), dtype=np.bool_)
        for one in request.pci:
            enough &= near.free(hosts, one)[0].sum(axis=1) >= one.count
        return enough

    def reason(self, request: RequestSpec) -> str:
        """Name the aliases."""
        return "fewer free PCI devices than " + ", ".join(f"{one.name}:{one.count}" for one in request.pci)

    def shortfall(self, hosts: Hosts, request: RequestSpec) -> Shortfall:
        """Say how many there are of the alias that most hosts have too few of."""
        counts = [(one, near.free(hosts, one)[0].sum(axis=1)) for one in request.pci]
        one, left = max(counts, key=lambda count: int((count[1] < count[0].count).sum()))
        closest = int(left.argmax())
        reason = f"PCI devices {one.name} asked: {one.count}, most free {int(left[closest])}"
        return Shortfall(reason, hosts.take([closest]).rows[0].name)
