# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer hosts whose servers have images like the request's."""

from __future__ import annotations

import numpy as np
from oslo_config import cfg

from accelsched.conf import filter_scheduler
from accelsched.scheduler.facts import ImageProperties
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import NovaWeigher


class ImagePropertiesWeigher(NovaWeigher):
    """Counts, over the servers of a host, the image properties that are as the request's image has them.

    ``image_props_weight_setting`` says which count, and how much; all, and 1, without it. Servers of the present
    request count as soon as they are placed.
    """

    override = "image_props_weight_multiplier"
    needs = frozenset({"images"})

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read the weights.

        :raises accelsched.errors.ConfigurationError: when the option is malformed
        """
        super().__init__(conf)
        option = "[filter_scheduler] image_props_weight_setting"
        self._weights = filter_scheduler.weights(conf.filter_scheduler.image_props_weight_setting, option)

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Count: float64[len(hosts)]."""
        wanted = request.image_properties
        images = hosts.facts.images
        likeness = np.zeros(len(hosts.facts.table))
        for name, of_host in images.items():
            index = hosts.facts.table.number_of.get(name)
            if index is not None:
                likeness[index] = sum(count * self._alike(wanted, properties) for properties, count in of_host)
        total: Floats = likeness[hosts.at] + hosts.placed * self._alike(wanted, wanted)
        return total

    def _alike(self, wanted: ImageProperties, properties: ImageProperties) -> float:
        weight = self._weights
        same = (name for name, value in wanted.items() if properties.get(name) == value)
        return float(sum(weight.get(name, 0.0) if weight else 1.0 for name in same))
