# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What schedulers know of hosts besides their resources, in columns made once and kept until a host changes.

Hosts that are in the same aggregates get the same answer to every question about aggregates, and hosts with the same
hypervisor to every question about that. So such a question is asked once for each *kind* of host, in plain Python, and
the answers are spread over the hosts by an index: what it costs does not grow with the fleet.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import numpy as np
import numpy.typing as npt
from oslo_log import log

from accelsched.placement.picture import NONE, Floats, Ints, Mask, Picture
from accelsched.scheduler.layout import Layout

LOG = log.getLogger(__name__)

Metadata = Mapping[str, frozenset[str]]
"""Values by key, of all the aggregates that a host is in; a value with commas in it is several."""


# What an agent says of its hypervisor that is true of one host only.
_OWN = frozenset({"hostname", "host_ip", "metrics"})


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """A host aggregate. ``uuid`` is its name in the resource database too."""

    uuid: str
    name: str
    metadata: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class HostRow:
    """What a decision needs to know of a host besides its resources."""

    name: str
    node_uuid: str
    agent: str
    simulated: bool
    disabled: bool
    forced_down: bool
    hypervisor: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # wire.HypervisorReport
    failed_builds: int = 0  # in a row
    aggregates: tuple[Aggregate, ...] = ()


class Kinds:
    """Hosts sorted into kinds that are alike in something."""

    def __init__(self, of_hosts: Sequence[tuple[Hashable, Any]]) -> None:
        """
        :param of_hosts: for each host what its kind is told by, and the kind
        """
        number_of: dict[Hashable, int] = {}
        self.kinds: list[Any] = []
        self._number: Ints = np.zeros(len(of_hosts), dtype=np.int64)
        for index, (key, kind) in enumerate(of_hosts):
            number = number_of.setdefault(key, len(number_of))
            if number == len(self.kinds):
                self.kinds.append(kind)
            self._number[index] = number

    def ask(self, question: Callable[[Any], Any], dtype: npt.DTypeLike, at: Ints) -> npt.NDArray[Any]:
        """Ask each kind once and return the answer for some hosts.

        :param at: indices of the hosts
        :returns: dtype[len(at)]
        """
        answers = np.array([question(kind) for kind in self.kinds], dtype=dtype)
        return answers[self._number[at]] if len(at) else np.zeros(0, dtype=dtype)


class HostTable(Sequence[HostRow]):
    """Hosts in a fixed order, and columns over all of them."""

    def __init__(
        self, rows: Sequence[HostRow], last_seen: Floats, aggregates: Sequence[Aggregate] | None = None
    ) -> None:
        """
        :param last_seen: moment of each host's last heartbeat, in seconds on the clock of ``Facts.now``
        :param aggregates: all that there are; those that have hosts when None
        """
        self.rows = list(rows)
        self.aggregates: Sequence[Aggregate] = (
            list({a.uuid: a for row in self.rows for a in row.aggregates}.values())
            if aggregates is None
            else aggregates
        )
        self.last_seen = last_seen
        self._layout: Layout | None = None
        self._least: dict[str, Floats] = {}
        self._metrics: dict[str, Floats] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def layout(self, picture: Picture) -> Layout:
        """Return where the hosts are in a picture: kept until anything but usage changes there."""
        if self._layout is None or not self._layout.is_of(picture):
            slots = [picture.slot_of_uuid.get(row.node_uuid, NONE) for row in self.rows]
            self._layout = Layout(picture, np.array(slots, dtype=np.int64))
        return self._layout

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys that any aggregate with hosts has metadata under."""
        return frozenset(key for kind in self.by_aggregates.kinds for key in kind)

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Index of each host by its name."""
        return {row.name: index for index, row in enumerate(self.rows)}

    @cached_property
    def hostnames(self) -> dict[str, list[str]]:
        """Names of hosts by the hostname of their hypervisor."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            found.setdefault(row.hypervisor.get("hostname", row.name), []).append(row.name)
        return found

    @cached_property
    def disabled(self) -> Mask:
        """Hosts that an operator disabled."""
        return np.array([row.disabled for row in self.rows], dtype=np.bool_)

    @cached_property
    def forced_down(self) -> Mask:
        """Hosts that an operator declared dead."""
        return np.array([row.forced_down for row in self.rows], dtype=np.bool_)

    @cached_property
    def failed_builds(self) -> Floats:
        """Builds that failed on each host since the last that succeeded."""
        return np.array([row.failed_builds for row in self.rows], dtype=np.float64)

    @cached_property
    def by_aggregates(self) -> Kinds:
        """Hosts by the aggregates that they are in; the kind is :data:`Metadata`."""
        known: dict[frozenset[str], Metadata] = {}

        def kind(row: HostRow) -> tuple[Hashable, Metadata]:
            key = frozenset(aggregate.uuid for aggregate in row.aggregates)
            if key not in known:
                known[key] = merged(row.aggregates)
            return key, known[key]

        return Kinds([kind(row) for row in self.rows])

    @cached_property
    def by_hypervisor(self) -> Kinds:
        """Hosts by what their agents say of the hypervisor, but for what is each host's own; the kind is that."""
        shared = [{key: value for key, value in row.hypervisor.items() if key not in _OWN} for row in self.rows]
        return Kinds([(json.dumps(kind, sort_keys=True), kind) for kind in shared])

    @cached_property
    def addresses(self) -> list[IPv4Address | IPv6Address | None]:
        """The address of each host, None where its agent does not tell it."""
        return [_address(row.hypervisor.get("host_ip", "")) for row in self.rows]

    def least(self, key: str) -> Floats:
        """Return the smallest number that each host's aggregates have under a key, NaN without one: float64[len].

        Nova's rule for options that aggregates override. When one of the values is no number, none of them counts.
        """
        if key not in self._least:
            everyone = np.arange(len(self), dtype=np.int64)
            self._least[key] = self.by_aggregates.ask(lambda metadata: _least(metadata, key), np.float64, everyone)
        return self._least[key]

    def metric(self, name: str) -> Floats:
        """Return a metric as each host's agent told it last, NaN where it does not: float64[len]."""
        if name not in self._metrics:
            told = [row.hypervisor.get("metrics", {}).get(name, math.nan) for row in self.rows]
            self._metrics[name] = np.array(told, dtype=np.float64)
        return self._metrics[name]

    def indices(self, names: Sequence[str]) -> Ints:
        """Return the indices of those of some hosts that are in the table."""
        return np.array([self.number_of[name] for name in names if name in self.number_of], dtype=np.int64)

    def tally(self, by_name: Mapping[str, int]) -> Ints:
        """Return a number by host's name as a column, 0 for others: int64[len]."""
        column = np.zeros(len(self), dtype=np.int64)
        for name, number in by_name.items():
            index = self.number_of.get(name)
            if index is not None:
                column[index] = number
        return column


def merged(aggregates: Sequence[Aggregate]) -> Metadata:
    """Return the metadata of some aggregates as one."""
    values: dict[str, set[str]] = {}
    for aggregate in aggregates:
        for key, text in aggregate.metadata.items():
            values.setdefault(key, set()).update(part.strip() for part in text.split(","))
    return {key: frozenset(found) for key, found in values.items()}


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _least(metadata: Metadata, key: str) -> float:
    try:
        numbers = [float(value) for value in metadata.get(key, ())]
    except ValueError:
        numbers = [math.nan]
    if any(not math.isfinite(number) for number in numbers):
        LOG.warning("Aggregate metadata %s=%s is no number; the configured value holds", key, sorted(metadata[key]))
        return math.nan
    return min(numbers, default=math.nan)
