# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Two filters and a weigher of a site of its own."""

from __future__ import annotations

import numpy as np
from oslo_config import cfg

from accelsched.placement.picture import Mask
from accelsched.scheduler.attributes import HostState
from accelsched.scheduler.filters.base import Filter, HostFilter
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import Weigher

OPTS = [cfg.FloatOpt("free_vgpu_weight_multiplier", default=1.0, help="Positive spreads, negative packs.")]


class NoGpuWastedFilter(Filter):
    """Keeps servers that want no vGPU off the hosts that have some."""

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Return which hosts may be used: bool[len(hosts)]."""
        if any("VGPU" in group.resources for group in request.query().groups):
            return np.ones(len(hosts), dtype=np.bool_)
        has_gpu = np.zeros(hosts.picture.slots, dtype=np.bool_)
        columns = hosts.picture.classes.get("VGPU")
        if columns is not None:
            slots = columns.slot[: columns.size]
            # The GPU has the inventory; the host is the root of the GPU's tree. Unused rows have a negative slot.
            has_gpu[hosts.picture.root[slots[slots >= 0]]] = True
        allowed: Mask = ~has_gpu[hosts.slots]
        return allowed

    def reason(self, request: RequestSpec) -> str:
        """Say why, for explanations."""
        return "kept free for servers that want a vGPU"


class RackHintFilter(HostFilter):
    """Obeys the scheduler hint ``rack=r12``: only hosts whose names begin with ``r12-``."""

    def host_passes(self, host: HostState, request: RequestSpec) -> bool:
        """Compare the name with the hint, if there is one."""
        rack = request.hints.get("rack")
        return rack is None or host.name.startswith(f"{rack}-")

    def reason(self, request: RequestSpec) -> str:
        """Say why, for explanations."""
        return f"not in rack {request.hints.get('rack')}"


class FreeVgpuWeigher(Weigher):
    """Prefers hosts with more free vGPUs, all their GPUs together."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Bring an option of our own."""
        super().__init__(conf)
        conf.register_opts(OPTS, group="gpusite")

    @property
    def multiplier(self) -> float:
        """Return [gpusite] free_vgpu_weight_multiplier."""
        return float(self.conf.gpusite.free_vgpu_weight_multiplier)

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return free vGPUs: float64[len(hosts)]."""
        free = np.zeros(hosts.picture.slots, dtype=np.float64)
        columns = hosts.picture.classes.get("VGPU")
        if columns is not None:
            n = columns.size
            used = hosts.usage.get("VGPU", columns.used)[:n]
            live = columns.slot[:n] >= 0
            roots = hosts.picture.root[columns.slot[:n][live]]
            np.add.at(free, roots, (columns.capacity[:n] - used)[live])
        chosen: Floats = free[hosts.slots]
        return chosen
