# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[metrics]``: how measurements of hosts weigh, by Nova's names."""

from __future__ import annotations

from oslo_config import cfg

from accelsched.conf import filter_scheduler

GROUP = "metrics"

OPTS = [
    cfg.FloatOpt(
        "weight_multiplier",
        default=1.0,
        help="MetricsWeigher. Metadata metrics_weight_multiplier of an aggregate overrides it; the least value wins.",
    ),
    cfg.ListOpt("weight_setting", default=[], help="Metrics that count, as name=ratio."),
    cfg.BoolOpt(
        "required",
        default=True,
        help="Hosts that lack one of the metrics weigh least of all; MetricsFilter removes them. Otherwise they weigh "
        "weight_of_unavailable.",
    ),
    cfg.FloatOpt("weight_of_unavailable", default=-10000.0, help="Weight of a host that lacks a metric."),
]


def check(conf: cfg.ConfigOpts) -> None:
    """Check what oslo.config cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    filter_scheduler.weights(conf.metrics.weight_setting, "[metrics] weight_setting")
