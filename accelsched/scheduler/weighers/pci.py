# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Keep hosts with devices for servers that want some."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import NONE, Ints, Mask
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.layout import summed
from accelsched.scheduler.request import HOST_CLASSES, RequestSpec
from accelsched.scheduler.weighers.base import NovaWeigher

_MOST = 99
# When so few of a fleet's hosts are weighed, their devices are looked up; for more, columns of the fleet are cheaper.
_FEW = 0.05


class PCIWeigher(NovaWeigher):
    """100 less the free devices of the host, of which 99 count at most: the fewer, the better.

    Nova counts PCI devices. Here every device that a host's agent reports counts that has something free, whatever its
    class: a GPU with room for one more vGPU too.
    """

    override = "pci_weight_multiplier"

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Count devices: float64[len(hosts)]."""
        classes = frozenset(hosts.picture.classes.keys() - HOST_CLASSES)
        devices = hosts.device_slots(classes)
        if len(hosts) <= _FEW * hosts.picture.slots:
            free = _free_of(hosts, devices, classes)
        else:
            free = _free_in_fleet(hosts, classes)[devices]
        weights: Floats = 100.0 - np.minimum(summed(free), _MOST)
        return weights


def _free_of(hosts: Hosts, devices: Ints, classes: frozenset[str]) -> Mask:
    """Tell which of some devices have something free: a bool for each slot."""
    free = np.zeros(devices.shape, dtype=np.bool_)
    for name in classes if devices.size else ():
        columns = hosts.picture.classes[name]
        rows = columns.rows_of(devices)
        some = hosts.usage.get(name, columns.used)[rows] < columns.capacity[rows]
        free |= some & (devices != NONE) & (rows != NONE)
    return free


def _free_in_fleet(hosts: Hosts, classes: frozenset[str]) -> Mask:
    """Tell which devices have something free: bool[slots + 1], the last one for NONE."""
    free = np.zeros(hosts.picture.slots + 1, dtype=np.bool_)
    for name in classes:
        columns = hosts.picture.classes[name]
        n = columns.size
        free[columns.slot[:n]] |= hosts.usage.get(name, columns.used)[:n] < columns.capacity[:n]
    return free
