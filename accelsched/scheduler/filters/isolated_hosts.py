# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts kept for certain images."""

from __future__ import annotations

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec


class IsolatedHostsFilter(Filter):
    """Keeps ``isolated_images`` on ``isolated_hosts``.

    With ``restrict_isolated_hosts_to_isolated_images`` these hosts take nothing else; without, they take any image.
    """

    once_per_request = True
    run_on_rebuild = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Compare host and image: bool[len(hosts)]."""
        options = self.conf.filter_scheduler
        image_isolated = request.image is not None and request.image["id"] in options.isolated_images
        isolated = hosts.named(options.isolated_hosts)
        if image_isolated:
            return isolated
        if options.restrict_isolated_hosts_to_isolated_images:
            return ~isolated
        return np.ones(len(hosts), dtype=np.bool_)

    def reason(self, request: RequestSpec) -> str:
        """Say so."""
        return "isolated_images and isolated_hosts keep this image and the host apart"
