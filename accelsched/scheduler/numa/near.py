# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Free PCI devices, and on which of their hosts' NUMA nodes these are: for a whole fleet at once."""

from __future__ import annotations

import dataclasses

import numpy as np

from accelsched import names
from accelsched.placement import candidates
from accelsched.placement.picture import NONE, Ints, Mask
from accelsched.scheduler import pci
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.pci import PciRequest
from accelsched.scheduler.request import RequestSpec


def free(hosts: Hosts, request: PciRequest) -> tuple[Ints, Ints]:
    """Return how many units the hosts' devices have left for a request, and the slots of the devices.

    :returns: int64[len(hosts), most on a host] each; 0 for a device that cannot serve it
    """
    picture = hosts.picture
    columns = picture.classes.get(request.resource_class)
    rows = hosts.device_rows(request.resource_class)
    if columns is None:
        return np.zeros(rows.shape, dtype=np.int64), rows
    ((_, group),) = pci.groups([dataclasses.replace(request, count=1)])
    slots = columns.slot[rows]
    able = (rows != NONE) & candidates.qualities(picture, group)[slots]
    return np.where(able, hosts.device_free(request.resource_class), 0), slots


def enough(hosts: Hosts, request: RequestSpec) -> Mask:
    """Tell on which NUMA nodes of hosts a server with one node would be near enough to the devices of its aliases.

    A necessary condition: which devices it gets is decided with its host.

    :returns: bool[len(hosts), most nodes of a host]
    """
    numbers = hosts.numa.number[hosts.numa_rows]
    near = np.ones(numbers.shape, dtype=np.bool_)
    affinities = [(one, request.affinity(group.suffix)) for one, group in pci.groups(request.pci)]
    for one, affinity in dict.fromkeys(affinities):
        if affinity not in ("required", "legacy"):
            continue
        units, slots = free(hosts, one)
        node_at = np.full(hosts.picture.slots, NONE, dtype=np.int64)
        for number in np.unique(numbers[numbers != NONE]).tolist():
            node_at[hosts.picture.traits.having(names.numa_node_trait(number), hosts.picture.slots)] = number
        nodes = node_at[slots]
        there = (nodes[:, :, None] == numbers[:, None, :]) & (numbers[:, None, :] != NONE)
        if affinity == "legacy":
            there |= (nodes == NONE)[:, :, None]
        near &= (units[:, :, None] * there).sum(axis=1) >= one.count
    return near
