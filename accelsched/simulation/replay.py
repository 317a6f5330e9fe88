# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Replay arrivals on a fleet: each is placed by the pipeline, in the file's order, and stays."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from accelsched.scheduler import hosts
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.outlook import Outlook, Shape
from accelsched.scheduler.planning.planner import Planner
from accelsched.scheduler.plugins import Plugins
from accelsched.scheduler.ranking import usage_of
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.standings import Standings
from accelsched.scheduler.weighers.fragmentation import fragmentation_of
from accelsched.simulation import trace
from accelsched.simulation.trace import GPU_CLASS, WHOLE_GPU, Node, Pod

_LOADS = (90, 95, 100, 110, 130)
_POINTS = 200


@dataclasses.dataclass(frozen=True)
class Decision:
    """Where a pod went: its host and which of the host's GPUs, or None when it fits nowhere."""

    pod: str
    node: str | None
    gpus: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a line of the decisions file has it."""
        return {"pod": self.pod, "node": self.node, "gpus": list(self.gpus)}


@dataclasses.dataclass(frozen=True)
class Point:
    """The fleet at one moment, in percent of its GPU capacity."""

    arrived: float
    allocated: float
    fragmented: float | None  # idle, but of no use to the average request of the mix; None without a mix


class Replay:
    """One run over a fleet that begins empty."""

    def __init__(
        self, nodes: Sequence[Node], history: Iterable[Pod], plugins: Plugins, seed: int, *, planned: bool = False
    ) -> None:
        """Make the fleet.

        :param history: pods seen beforehand, to learn the mix from; without any it is learned from the arrivals
        :param seed: fixes the order of hosts that score the same
        :param planned: whether plans are made, for weighers that ask for them
        """
        picture, rows = trace.picture_of(nodes)
        self._models = frozenset(node.model for node in nodes)
        self._requests: dict[object, RequestSpec] = {}
        self.outlook = Outlook(Counter(Shape.of(self._request(pod).query()) for pod in history))
        everyone: Hosts = hosts.align(picture, rows, usage_of(picture), outlook=self.outlook)
        self._standings = Standings(everyone, plugins, str(seed))
        self._planner = Planner(everyone) if planned else None
        self._gpu = {f"{node.name}/{number}": number for node in nodes for number in range(node.gpus)}
        self.capacity = sum(node.gpus for node in nodes) * WHOLE_GPU
        self.points: list[Point] = []
        self.seconds = 0.0

    def run(self, pods: Sequence[Pod], each: Callable[[Decision], None]) -> dict[str, Any]:
        """Place all pods.

        :param each: told every decision
        :returns: the summary
        """
        arrived = used = placed = 0
        capacity = max(1, self.capacity)
        samples: dict[int, list[float]] = {}
        every = max(1, len(pods) // _POINTS)
        for number, pod in enumerate(pods):
            arrived += pod.gpu_milli_in_all
            request = self._request(pod)
            started = time.perf_counter()
            if self._planner is not None:
                self._planner.request()
            selection = self._standings.place(pod.kind, request)
            self.seconds += time.perf_counter() - started
            if selection is None:
                each(Decision(pod.name, None, ()))
            else:
                placed += 1
                used += pod.gpu_milli_in_all
                gpus = (self._gpu[device["provider_name"]] for device in selection.devices if device["group"])
                each(Decision(pod.name, selection.host.name, tuple(sorted(gpus))))
            samples.setdefault(round(100 * arrived / capacity), []).append(100 * used / capacity)
            if number % every == 0 or number == len(pods) - 1:
                self.points.append(Point(100 * arrived / capacity, 100 * used / capacity, self._fragmented()))
        return {
            "arrivals": len(pods),
            "placed": placed,
            "refused": len(pods) - placed,
            "gpu_capacity_milli": self.capacity,
            "gpu_arrived_milli": arrived,
            "gpu_allocated_milli": used,
            "allocation_percent_at_load": {
                str(load): round(sum(some) / len(some), 3) for load in _LOADS if (some := samples.get(load))
            },
            "decision_seconds": round(self.seconds, 3),
            "decisions_per_second": round(len(pods) / self.seconds, 1) if self.seconds else None,
        }

    def _request(self, pod: Pod) -> RequestSpec:
        if pod.kind not in self._requests:
            self._requests[pod.kind] = trace.request_of(pod, self._models)
        return self._requests[pod.kind]

    def _fragmented(self) -> float | None:
        column = fragmentation_of(self._standings.hosts, GPU_CLASS)
        return None if column is None else 100 * float(column.sum()) / max(1, self.capacity)
