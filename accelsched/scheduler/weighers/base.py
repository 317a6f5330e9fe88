# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a weigher is: of hosts, or of the devices within them."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from oslo_config import cfg

from accelsched.placement.picture import Ints
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.outlook import DeviceNeed, Shape
from accelsched.scheduler.request import RequestSpec


@dataclasses.dataclass(frozen=True)
class Options:
    """Hosts, and devices within them, that can serve a request, in columns of one length.

    :ivar place: of each option in a table with a row for each host and ``width`` columns for its devices, counted
        through row by row, ascending: int64[len]
    :ivar rows: of the device's inventory in the columns of the class that is needed, int64[len]; of no meaning without
        a need
    :ivar need: what is asked of the device; None when the request asks for none, and each host is one option
    :ivar own: what is asked of the host itself, by resource class
    :ivar shape: of the request
    """

    place: Ints
    width: int
    rows: Ints
    need: DeviceNeed | None
    own: Mapping[str, int]
    shape: Shape

    def __len__(self) -> int:
        return len(self.place)

    @classmethod
    def of_hosts(cls, hosts: Ints, own: Mapping[str, int], shape: Shape) -> Options:
        """Return hosts that can serve a request that asks for no devices."""
        return cls(hosts, 1, hosts, None, own, shape)

    @functools.cached_property
    def host(self) -> Ints:
        """Which of the hosts each option is, ascending: int64[len]."""
        return self.place if self.width == 1 else self.place // self.width

    @functools.cached_property
    def device(self) -> Ints:
        """Which of that host's devices, a column of ``hosts.device_rows(need.resource_class)``: int64[len]."""
        device: Ints = self.place - self.host * self.width
        return device


class Weigher(ABC):
    """Weighs hosts. Made once a process; must be a pure function of its arguments.

    Raw weights of hosts are brought to 0..1 over the hosts of a request, multiplied, and added up over the weighers.
    A host's weight may depend on its own state only: after a placement, only that host is weighed again.

    :cvar override: key of aggregate metadata that overrides the multiplier for the hosts in the aggregate, as in Nova;
        the least value wins when a host is in several. None: no override
    :cvar needs: what it reads of the facts besides hosts: see :class:`accelsched.scheduler.facts.Facts`
    """

    override: ClassVar[str | None] = None
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    @property
    @abstractmethod
    def multiplier(self) -> float:
        """How much this weigher counts; negative turns it round."""

    def multipliers(self, hosts: Hosts) -> Floats:
        """Return how much this weigher counts for each host: float64[len(hosts)]."""
        if self.override is None:
            return np.broadcast_to(self.multiplier, len(hosts))
        return hosts.least(self.override, self.multiplier)

    @abstractmethod
    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return raw weights, more is better: float64[len(hosts)]."""


class NovaWeigher(Weigher):
    """A weigher whose option in ``[filter_scheduler]`` and key in aggregates' metadata have one name, as in Nova."""

    override: ClassVar[str]

    @property
    def multiplier(self) -> float:
        """Return the option of the name ``override``."""
        return float(self.conf.filter_scheduler[self.override])


class DeviceWeigher(Weigher):
    """Weighs devices: each host by the best of its devices that can serve the request, and these among each other.

    These weights are not brought to 0..1 over the request's hosts. They have to be between 0 and 1 by themselves.
    """

    def counts(self, hosts: Hosts) -> bool:
        """Tell whether any two options on these hosts could weigh differently; when not, it is not asked.

        :param hosts: any; it is about their fleet
        """
        return True

    @abstractmethod
    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return the weight of taking each option: float64[len(options)], 0..1, more is better.

        For a need of several devices: the weight of taking that one as one of them.
        """

    def weigh(self, hosts: Hosts, request: RequestSpec) -> Floats:
        """Return the weights of hosts for a request that asks for no device: float64[len(hosts)]."""
        options = Options.of_hosts(np.arange(len(hosts)), {}, Shape.of(request.query()))
        return self.weigh_options(hosts, request, options)
