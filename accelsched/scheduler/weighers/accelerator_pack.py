# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Fill accelerators that are in use before opening empty ones, so that whole ones stay whole."""

from __future__ import annotations

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options


class AcceleratorPackWeigher(DeviceWeigher):
    """Weighs a device by how full it is, and a host by the fullest of its devices that have room.

    Without a device asked for, all hosts weigh the same. Room that other classes of a device took away, by its capacity
    rule, is in use too.
    """

    @property
    def multiplier(self) -> float:
        """Return [scheduler] accelerator_pack_weight_multiplier."""
        return float(self.conf.scheduler.accelerator_pack_weight_multiplier)

    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return the share of each device in use: float64[len(options)], 0..1."""
        if options.need is None:
            return np.zeros(len(options))
        name, rows = options.need.resource_class, options.rows
        columns = hosts.picture.classes[name]
        used = hosts.usage[name]
        share: Floats
        if 2 * len(rows) > len(used):  # in the order in which they lie in memory
            n = len(used)
            share = (1.0 - (columns.capacity[:n] - used) / np.maximum(columns.whole(slice(n)), 1))[rows]
        else:
            share = 1.0 - (columns.capacity[rows] - used[rows]) / columns.whole(rows)
        return share
