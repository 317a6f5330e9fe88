# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The filter that removes nothing."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class AllHostsFilter(Filter):
    """Passes every host."""

    once_per_request = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Return yes for all: bool[len(hosts)]."""
        return np.ones(len(hosts), dtype=np.bool_)
