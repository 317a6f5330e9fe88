# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import conf as options
from accelsched.scheduler import plugins
from accelsched.simulation import policies
from accelsched.simulation.replay import Decision, Replay
from accelsched.simulation.trace import WHOLE_GPU, Node, Pod

POLICIES = sorted(policies.POLICIES)


@functools.cache
def loaded(policy: str) -> plugins.Plugins:
    conf = options.new()
    options.parse(conf, [], "test")
    weighers = policies.POLICIES[policy].weighers
    if weighers is not None:
        conf.set_override("weighers", list(weighers), group="scheduler")
    return plugins.load(conf)


def random_pod(rng: random.Random, number: int) -> Pod:
    gpus = rng.choice([0, 1, 1, 1, 2, 4])
    milli = WHOLE_GPU if gpus > 1 else rng.choice([110, 320, 500, 650, 1000])
    models = rng.choice([frozenset(), frozenset(), frozenset({"A"}), frozenset({"A", "B"}), frozenset({"gone"})])
    cpu, memory = rng.choice([1000, 3152, 8000]), rng.choice([512, 4096])
    return Pod(f"pod-{number}", cpu, memory, gpus, milli if gpus else 0, models if gpus else frozenset())


def random_run(seed: int) -> tuple[list[Node], list[Pod], list[Pod]]:
    rng = random.Random(seed)
    nodes = [
        Node(f"n{i}", rng.choice([4000, 16000, 32000]), rng.choice([8192, 65536]), rng.randint(0, 4), rng.choice("AB"))
        for i in range(rng.randint(1, 8))
    ]
    pods = [random_pod(rng, number) for number in range(rng.randint(1, 60))]
    return nodes, pods, [random_pod(rng, number) for number in range(rng.choice([0, 30]))]


def decisions(policy: str, nodes: list[Node], pods: list[Pod], history: list[Pod], seed: int) -> list[Decision]:
    made: list[Decision] = []
    Replay(nodes, history, loaded(policy), seed, planned=policies.POLICIES[policy].planned).run(pods, made.append)
    return made


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_nothing_is_given_twice_and_nothing_that_fits_is_refused(policy: str, seed: int) -> None:
    nodes, pods, history = random_run(seed)
    left = {node.name: [node.cpu_milli, node.memory_mib, [WHOLE_GPU] * node.gpus, node.model] for node in nodes}

    def fits(name: str, pod: Pod) -> bool:
        cpu, memory, gpus, model = left[name]
        return (
            cpu >= pod.cpu_milli
            and memory >= pod.memory_mib
            and (not pod.models or model in pod.models)
            and sum(free >= pod.gpu_milli for free in gpus) >= pod.gpus
        )

    for pod, decision in zip(pods, decisions(policy, nodes, pods, history, seed), strict=True):
        assert decision.pod == pod.name
        if decision.node is None:
            assert not any(fits(name, pod) for name in left)
            continue
        assert fits(decision.node, pod)
        gpus = left[decision.node][2]
        assert len(set(decision.gpus)) == pod.gpus
        assert all(gpus[number] >= pod.gpu_milli for number in decision.gpus)
        left[decision.node][0] -= pod.cpu_milli
        left[decision.node][1] -= pod.memory_mib
        for number in decision.gpus:
            gpus[number] -= pod.gpu_milli


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_decisions(policy: str) -> None:
    nodes, pods, history = random_run(7)
    assert decisions(policy, nodes, pods, history, 3) == decisions(policy, nodes, pods, history, 3)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pods_that_arrive_later_change_nothing(policy: str, seed: int) -> None:
    nodes, pods, history = random_run(seed)
    half = pods[: len(pods) // 2]
    assert decisions(policy, nodes, pods, history, seed)[: len(half)] == decisions(policy, nodes, half, history, seed)


def test_a_summary_counts_what_was_asked_and_given() -> None:
    nodes = [Node("a", 8000, 4096, 1, "A")]
    pods = [Pod(str(i), 1000, 1024, 1, 500, frozenset()) for i in range(3)]
    summary = Replay(nodes, [], loaded("fgd"), 0).run(pods, lambda _: None)
    assert (summary["placed"], summary["refused"]) == (2, 1)
    assert summary["gpu_allocated_milli"] == 1000
    assert summary["allocation_percent_at_load"] == {"100": 100.0}
