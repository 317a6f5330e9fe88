# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer the places that a plan keeps for requests of this shape."""

from __future__ import annotations

import numpy as np

from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options

_KEPT, _UNPLANNED, _OTHERS = 1.0, 0.5, 0.0


class PlannedWeigher(DeviceWeigher):
    """Weighs a place that is kept for the request's shape 1, one that nothing is planned for 0.5, others' places 0.

    The plan is the outlook's (:mod:`accelsched.scheduler.planning`). Without one everything weighs the same. Give it a
    multiplier that is larger than the others' together, which then decide among places that are as good by the plan.
    """

    needs = frozenset({"outlook", "plan"})

    @property
    def multiplier(self) -> float:
        """Return [scheduler] planned_weight_multiplier."""
        return float(self.conf.scheduler.planned_weight_multiplier)

    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return how each place stands in the plan: float64[len(options)]."""
        plan = hosts.outlook.plan if hosts.outlook else None
        need = options.need
        if plan is None or not len(options) or (need and need.resource_class != plan.resource_class):
            return np.zeros(len(options))
        unplanned = np.ones(len(options), dtype=np.bool_)
        for name, amount in options.own.items():
            slack = plan.own_slack(name)
            if slack is not None:
                unplanned &= hosts.part(slack)[options.host] >= amount
        if need:
            room = hosts.part(plan.device_slack) >= need.amount
            unplanned &= room[options.host, options.device] & (room.sum(axis=1) >= need.count)[options.host]
        weight: Floats = np.where(unplanned, _UNPLANNED, _OTHERS)
        places = plan.places(options.shape)
        if places is not None:
            weight[hosts.part(places)[options.host, options.device] > 0] = _KEPT
        return weight
