# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Use devices that carry a type already before those that could still become any."""

from __future__ import annotations

import numpy as np

from accelsched.placement.columns import NO_CEILING
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options

_STARTED, _UNRULED, _UNTOUCHED = 1.0, 0.5, 0.0


class VgpuTypeWeigher(DeviceWeigher):
    """Weighs a device that several types share by whether it is in use: 1 when it is, 0 when it is not; others 0.5.

    The first type on such a device takes room of the others, with one type at a time all of it. Without a device
    asked for, or where no device is shared so, everything weighs the same.
    """

    @property
    def multiplier(self) -> float:
        """Return [scheduler] vgpu_type_weight_multiplier."""
        return float(self.conf.scheduler.vgpu_type_weight_multiplier)

    def counts(self, hosts: Hosts) -> bool:
        """Tell whether any device has a capacity rule."""
        return bool(hosts.picture.partitions)

    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return whether each device's types are settled: float64[len(options)]."""
        if options.need is None:
            return np.zeros(len(options))
        name = options.need.resource_class
        columns = hosts.picture.classes[name]
        rows = hosts.device_rows(name)[options.host, options.device]
        started = columns.capacity[rows] - hosts.usage[name][rows] < columns.whole(rows)
        weight: Floats = np.where(
            columns.ceiling[rows] == NO_CEILING, _UNRULED, np.where(started, _STARTED, _UNTOUCHED)
        )
        return weight
