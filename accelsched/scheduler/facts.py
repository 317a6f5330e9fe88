# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What plug-ins are told besides the picture: hosts, their aggregates, and what surrounds one request."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from accelsched.placement.picture import Floats, Ints, Mask
from accelsched.scheduler.table import HostTable, Metadata

if TYPE_CHECKING:
    from accelsched.scheduler.outlook import Outlook

Count = Literal["servers", "io_ops"]
"""What may be counted on hosts: servers; servers that are being built."""

ImageProperties = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Group:
    """A server group, and how many of its members each host of the table has: int64[len(table)]."""

    policy: str
    most: int  # members on one host, for anti-affinity
    members: Ints


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that a decision is made from, but for the picture. Nothing of it changes while it is used.

    ``counts`` and ``images`` are there when a plug-in that is enabled says that it needs them.
    """

    table: HostTable
    now: float  # on the clock of the table's last_seen
    group: Group | None = None
    located: Mapping[str, str] = dataclasses.field(default_factory=dict)  # host by uuid, of servers that hints name
    counts: Mapping[Count, Ints] = dataclasses.field(default_factory=dict)  # int64[len(table)]
    # For each host by name, the properties of the images of its servers and how many have them.
    images: Mapping[str, tuple[tuple[ImageProperties, int], ...]] = dataclasses.field(default_factory=dict)
    outlook: Outlook | None = None  # what the fleet is expected to be asked for, when a plug-in needs it

    def with_placed(self, by_host: Mapping[str, int]) -> Facts:
        """Return the facts once servers were put on some hosts, by their names."""
        placed = self.table.tally(by_host)
        return dataclasses.replace(self, counts={what: count + placed for what, count in self.counts.items()})

    def count(self, what: Count) -> Ints:
        """Return a count for every host of the table, zeros when nobody counted: int64[len(table)]."""
        found = self.counts.get(what)
        return np.zeros(len(self.table), dtype=np.int64) if found is None else found


class Told(ABC):
    """What :class:`accelsched.scheduler.hosts.Hosts` can tell of its hosts from the facts.

    :ivar facts: of the decision
    :ivar at: index of each host in the facts' table, int64[len]
    :ivar placed: servers of the present request that were put on each host, int64[len]
    """

    facts: Facts

    @property
    @abstractmethod
    def at(self) -> Ints:
        """Return the index of each host in the facts' table: int64[len]."""

    @property
    @abstractmethod
    def placed(self) -> Ints:
        """Return how many servers of the present request were put on each host: int64[len]."""

    @property
    @abstractmethod
    def any_placed(self) -> bool:
        """Tell whether any host, one of these or another, got a server of the present request."""

    @property
    def silent_s(self) -> Floats:
        """Return the seconds since each host's last heartbeat: float64[len]."""
        silent: Floats = self.facts.now - self.facts.table.last_seen[self.at]
        return silent

    @property
    def disabled(self) -> Mask:
        """Return which hosts an operator disabled: bool[len]."""
        return self.facts.table.disabled[self.at]

    @property
    def forced_down(self) -> Mask:
        """Return which hosts an operator declared dead: bool[len]."""
        return self.facts.table.forced_down[self.at]

    @property
    def failed_builds(self) -> Floats:
        """Return how many builds failed on each host since the last that succeeded: float64[len]."""
        return self.facts.table.failed_builds[self.at]

    @property
    def num_instances(self) -> Ints:
        """Return how many servers each host has, those of the present request too: int64[len]."""
        return self.facts.count("servers")[self.at] + self.placed

    @property
    def num_io_ops(self) -> Ints:
        """Return how many servers are being built on each host, those of the present request too: int64[len]."""
        return self.facts.count("io_ops")[self.at] + self.placed

    @property
    def group_members(self) -> Ints:
        """Return how many members of the request's group each host has, those just placed too: int64[len]."""
        group = self.facts.group
        return self.placed if group is None else group.members[self.at] + self.placed

    def by_aggregates(self, question: Callable[[Metadata], Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Ask something of the merged metadata of each host's aggregates: dtype[len]."""
        return self.facts.table.by_aggregates.ask(question, dtype, self.at)

    def by_hypervisor(self, question: Callable[[Mapping[str, Any]], Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Ask something of what each host's agent says of its hypervisor: dtype[len]."""
        return self.facts.table.by_hypervisor.ask(question, dtype, self.at)

    def least(self, key: str, default: float) -> Floats:
        """Return an option that aggregates may override: the least of their values, else the default: float64[len]."""
        if key not in self.facts.table.keys:
            return np.broadcast_to(np.float64(default), len(self.at))
        values = self.facts.table.least(key)[self.at]
        return np.where(np.isnan(values), default, values)

    def metric(self, name: str) -> Floats:
        """Return a metric as each host's agent told it last, NaN where it does not: float64[len]."""
        return self.facts.table.metric(name)[self.at]

    def named(self, names: Any) -> Mask:
        """Return which hosts have one of some names: bool[len]."""
        chosen = np.zeros(len(self.facts.table), dtype=np.bool_)
        chosen[self.facts.table.indices(list(names))] = True
        return chosen[self.at]
