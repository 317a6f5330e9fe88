# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer the host, and on it the device, that the request fills best."""

from __future__ import annotations

from functools import partial

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import HOST_CLASSES, RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options

_DEVICES_BREAK_TIES = 1e-6


class BestFitWeigher(DeviceWeigher):
    """Weighs a host by how little CPU and devices it would have left; of a host's devices, the fullest that has room.

    What is left is measured by the most that any host has, half CPU and half devices, and cut to hundredths: the best
    fit of the GPU packing literature (see :class:`~accelsched.scheduler.weighers.fragmentation.FragmentationWeigher`).
    """

    @property
    def multiplier(self) -> float:
        """Return [scheduler] best_fit_weight_multiplier."""
        return float(self.conf.scheduler.best_fit_weight_multiplier)

    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return 1 less the share left of CPU and devices: float64[len(options)], 0..1."""
        if not len(options):
            return np.zeros(0)
        left = np.zeros(len(options))
        cpus = hosts.picture.classes.get("VCPU")
        if cpus is not None:
            free = hosts.free("VCPU")[options.host] - options.own.get("VCPU", 0)
            left += free / (2.0 * max(1, int(cpus.capacity.max())))
        need = options.need
        devices = [need.resource_class] if need else sorted(hosts.picture.classes.keys() - HOST_CLASSES)
        for name in devices:
            free = hosts.device_free(name).sum(axis=1)[options.host]
            most = hosts.whole().fixed(("devices in all", name), partial(_in_all, name=name))
            asked = need.amount * need.count if need else 0
            left += (free - asked) / (2.0 * len(devices) * max(1.0, float(most.max(initial=0.0))))
        if need is None:
            return _cut(1.0 - left)
        room = hosts.device_free(need.resource_class)[options.host, options.device]
        # Within a host only: the fullest device costs its host nothing, so hosts that tie go on to tie.
        starts = np.flatnonzero(np.diff(options.host, prepend=-1))
        least = np.repeat(np.minimum.reduceat(room, starts), np.diff(starts, append=len(room)))
        weight: Floats = _cut(1.0 - left) - _DEVICES_BREAK_TIES * (room - least) / max(1, int(room.max()))
        return weight


def _cut(weight: Floats) -> Floats:
    cut: Floats = np.floor(100.0 * weight) / 100.0
    return cut


def _in_all(whole: Hosts, name: str) -> Floats:
    rows = whole.device_rows(name)
    capacity = whole.picture.classes[name].whole(rows)
    in_all: Floats = np.where(rows >= 0, capacity, 0).sum(axis=1).astype(np.float64)
    return in_all
