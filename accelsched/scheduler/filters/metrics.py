# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts that tell every metric that is to be weighed."""

from __future__ import annotations

import numpy as np
from oslo_config import cfg

from accelsched.conf import filter_scheduler
from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class MetricsFilter(Filter):
    """Passes hosts that tell all metrics of ``[metrics] weight_setting``."""

    once_per_request = True

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read the names.

        :raises accelsched.errors.ConfigurationError: when the option is malformed
        """
        super().__init__(conf)
        self._names = list(filter_scheduler.weights(conf.metrics.weight_setting, "[metrics] weight_setting"))

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Look for the names: bool[len(hosts)]."""
        told = np.ones(len(hosts), dtype=np.bool_)
        for name in self._names:
            told &= ~np.isnan(hosts.metric(name))
        return told

    def reason(self, request: RequestSpec) -> str:
        """Name the metrics."""
        return f"does not tell all of the metrics {', '.join(self._names)}"
