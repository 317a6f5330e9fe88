# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The weigher against a plain reading of the published formula."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import conf as options
from accelsched.scheduler import hosts
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.outlook import Outlook, Shape
from accelsched.scheduler.ranking import Ranking, usage_of
from accelsched.scheduler.weighers import fragmentation as fragmentation_weigher
from accelsched.scheduler.weighers.fragmentation import FragmentationWeigher, fragmentation_of
from accelsched.simulation import trace
from accelsched.simulation.trace import GPU_CLASS, Node, Pod

MODELS = frozenset({"A", "B"})
PODS = st.builds(
    Pod,
    name=st.just("p"),
    cpu_milli=st.integers(0, 12),
    memory_mib=st.just(0),
    gpus=st.sampled_from([0, 1, 1, 2, 4]),
    gpu_milli=st.sampled_from([100, 300, 500, 1000]),
    models=st.sampled_from([frozenset(), frozenset({"A"})]),
).map(
    lambda pod: (
        Pod("p", pod.cpu_milli, 0, pod.gpus, 1000 if pod.gpus > 1 else pod.gpu_milli, pod.models)
        if pod.gpus
        else Pod("p", pod.cpu_milli, 0, 0, 0, frozenset())
    )
)
NODES = st.lists(st.tuples(st.integers(1, 24), st.integers(0, 4), st.sampled_from(["A", "B"])), min_size=1, max_size=4)


def typical(history: list[Pod]) -> list[tuple[Pod, float]]:
    counts = Counter(history).most_common()
    chosen, covered = [], 0
    for pod, count in counts:
        chosen.append((pod, count))
        covered += count
        if covered >= 0.95 * len(history):
            break
    whole = sum(count for _, count in chosen)
    return [(pod, count / whole) for pod, count in chosen]


def fragmentation(cpu: int, gpus: list[int], model: str, mix: list[tuple[Pod, float]]) -> float:
    total = 0.0
    for pod, share in mix:
        able = pod.gpus and cpu >= pod.cpu_milli and (not pod.models or model in pod.models)
        enough = sum(left >= pod.gpu_milli for left in gpus) >= pod.gpus
        if able and enough:
            total += share * sum(left for left in gpus if left < pod.gpu_milli)
        else:
            total += share * sum(gpus)
    return total


def outcomes(gpus: list[int], pod: Pod) -> Iterator[list[int]]:
    """Yield what may be left of a host's GPUs: each device with the first others that have enough."""
    if not pod.gpus:
        yield gpus
        return
    enough = [i for i, left in enumerate(gpus) if left >= pod.gpu_milli]
    for first in enough:
        taken = [first, *[i for i in enough if i != first][: pod.gpus - 1]]
        if len(taken) == pod.gpus:
            yield [left - pod.gpu_milli if i in taken else left for i, left in enumerate(gpus)]


@settings(max_examples=100, deadline=None)
@given(history=st.lists(PODS, min_size=1, max_size=12), sizes=NODES, pod=PODS, data=st.data())
def test_weights_are_the_published_formula(
    history: list[Pod], sizes: list[tuple[int, int, str]], pod: Pod, data: st.DataObject
) -> None:
    nodes = [Node(f"n{i}", cpu, 1, gpus, model) for i, (cpu, gpus, model) in enumerate(sizes)]
    picture, rows = trace.picture_of(nodes)
    requests = [trace.request_of(one, MODELS) for one in history]
    outlook = Outlook(Counter(Shape.of(one.query()) for one in requests))
    fleet = hosts.align(picture, rows, usage_of(picture), outlook=outlook)
    used: dict[str, list[int]] = {}
    for node in nodes:
        used[node.name] = [data.draw(st.sampled_from([0, 0, 300, 700, 1000])) for _ in range(node.gpus)]
        for number, amount in enumerate(used[node.name]):
            columns = picture.classes[GPU_CLASS]
            fleet.usage[GPU_CLASS][columns.row_of(picture.slot_of_uuid[f"{node.name}/{number}"])] = amount
    spec = trace.request_of(pod, MODELS)
    weigher = FragmentationWeigher(options.new())
    turn = np.arange(len(nodes))
    ranking = Ranking(fleet, spec, spec.query(), np.ones(len(nodes), dtype=np.bool_), (), [weigher], turn)
    mix = typical(history)
    now = fragmentation_of(fleet, GPU_CLASS)
    for index, node in enumerate(nodes):
        gpus = [1000 - amount for amount in used[node.name]]
        before = fragmentation(node.cpu_milli, gpus, node.model, mix)
        if now is not None:
            assert math.isclose(now[index], before, abs_tol=1e-6)
        weights: list[float] = []
        if node.cpu_milli >= pod.cpu_milli and (not pod.models or node.model in pod.models):
            for after in outcomes(gpus, pod):
                change = before - fragmentation(node.cpu_milli - pod.cpu_milli, after, node.model, mix)
                weights.append(100 / (1 + math.exp(-change / 1000)))
        if not weights:
            assert math.isinf(ranking.total[index])
        elif pod.gpus or (any(one.gpus for one in history) and any(other.gpus for other in nodes)):
            # Where the cut to hundredths falls on a last bit, either side is right.
            either = {math.floor(max(weights) - 1e-9) / 100, math.floor(max(weights) + 1e-9) / 100}
            assert ranking.total[index] in either


@pytest.mark.parametrize("block", [8192, 16])
def test_a_host_is_as_fragmented_alone_as_among_others(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(fragmentation_weigher, "_BLOCK", block)
    asked = [Pod("p", cpu, 0, 1, milli, frozenset()) for cpu in range(1, 12) for milli in (130, 370, 1000)]
    history = [pod for number, pod in enumerate(asked) for _ in range(1 + number % 7)]
    picture, rows = trace.picture_of([Node(f"n{number}", 3 + number, 1, 8, "A") for number in range(40)])
    outlook = Outlook(Counter(Shape.of(trace.request_of(pod, MODELS).query()) for pod in history))
    gpus = picture.classes[GPU_CLASS]
    gpus.used[: gpus.size] = np.arange(gpus.size) * 37 % 1000

    def fleet() -> Hosts:
        return hosts.align(picture, rows, usage_of(picture), outlook=outlook)

    together = fragmentation_of(fleet(), GPU_CLASS)
    assert together is not None
    for count in (1, 2, 3, 7):
        for first in range(0, 40, count):
            some = np.arange(first, min(first + count, 40))
            alone = fragmentation_of(fleet().take(some), GPU_CLASS)
            assert alone is not None
            assert np.array_equal(alone, together[some])
