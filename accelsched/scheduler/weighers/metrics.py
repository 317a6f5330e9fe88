# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer hosts by what their agents measure."""

from __future__ import annotations

import numpy as np
from oslo_config import cfg

from accelsched.conf import filter_scheduler
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import Weigher


class MetricsWeigher(Weigher):
    """The sum of metrics, each times its ratio in ``[metrics] weight_setting``.

    A host that lacks one of them weighs ``weight_of_unavailable``, or less than every other where metrics are
    ``required``.
    """

    override = "metrics_weight_multiplier"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read the ratios.

        :raises accelsched.errors.ConfigurationError: when the option is malformed
        """
        super().__init__(conf)
        self._ratios = filter_scheduler.weights(conf.metrics.weight_setting, "[metrics] weight_setting")

    @property
    def multiplier(self) -> float:
        """Return [metrics] weight_multiplier; 0 without metrics to weigh."""
        return float(self.conf.metrics.weight_multiplier) if self._ratios else 0.0

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Add up: float64[len(hosts)]."""
        total = np.zeros(len(hosts))
        for name, ratio in self._ratios.items():
            total += ratio * hosts.metric(name)
        lacking = np.isnan(total)
        if lacking.any():
            least = self.conf.metrics.weight_of_unavailable
            if self.conf.metrics.required and not lacking.all():
                least = min(least, float(total[~lacking].min()) - 1.0)
            total[lacking] = least
        return total
