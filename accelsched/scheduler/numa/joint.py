# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A server's resources, devices and NUMA nodes on one host, chosen together."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable

from accelsched import names
from accelsched.placement.candidates import Candidate
from accelsched.placement.numa.topology import Placement, Ratios
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.numa.fit import Device, Fit, place
from accelsched.scheduler.numa.request import NumaRequest
from accelsched.scheduler.request import RequestSpec

# Ways to choose devices that are looked at on one host. Most of them differ in nothing that matters here.
_MOST_WAYS = 2000


def best(
    hosts: Hosts, index: int, request: RequestSpec, numa: NumaRequest | None, ways: Iterable[Candidate]
) -> tuple[Candidate, Placement | None] | None:
    """Return the first of several ways to serve a request on a host whose devices are as near as any's.

    :param ways: in the order of preference
    :returns: None when there is none that fits
    """
    if numa is None:
        first = next(iter(ways), None)
        return None if first is None else (first, None)
    picture, root = hosts.picture, int(hosts.slots[index])
    host = hosts.numa.host(root)
    one = hosts.take([index])
    ratios = Ratios(float(one.ratio("VCPU")[0]), float(one.ratio("MEMORY_MB")[0]))
    node_of = {slot: names.numa_node_of(picture.traits.names(slot)) for slot in picture.tree[root] if slot != root}
    counts = Counter(node for node in node_of.values() if node is not None)
    affinity = functools.cache(request.affinity)
    known: dict[frozenset[tuple[Device, int]], Fit | None] = {}
    chosen: tuple[Candidate, Fit] | None = None
    for way in itertools.islice(ways, _MOST_WAYS):
        devices = [
            Device(node_of[slot], affinity(suffix))
            for suffix, slots in way.mappings.items()
            for slot in slots
            if slot in node_of
        ]
        key = frozenset(Counter(devices).items())
        if key not in known:
            known[key] = place(host, numa, ratios, devices, counts)
        fit = known[key]
        if fit is not None and (chosen is None or fit.distant < chosen[1].distant):
            chosen = way, fit
            if not fit.distant:
                break
    return None if chosen is None else (chosen[0], chosen[1].placement)
