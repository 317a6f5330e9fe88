# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched.scheduler import hosts
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.outlook import Mix, Outlook, Shape
from accelsched.scheduler.planning import plan
from accelsched.scheduler.planning.plan import Plan
from accelsched.scheduler.planning.planner import Planner
from accelsched.scheduler.ranking import usage_of
from accelsched.simulation import trace
from accelsched.simulation.trace import GPU_CLASS, Node, Pod

MODELS = frozenset({"A", "B"})


def shape_of(cpu: int, gpus: int, milli: int, models: frozenset[str] = frozenset()) -> Shape:
    return Shape.of(trace.request_of(Pod("p", cpu, 64, gpus, milli, models), MODELS).query())


def fleet(nodes: list[Node], outlook: Outlook | None = None) -> Hosts:
    picture, rows = trace.picture_of(nodes)
    return hosts.align(picture, rows, usage_of(picture), outlook=outlook)


def made(everyone: Hosts, counts: dict[Shape, float]) -> Plan:
    result = plan.make(everyone, Mix(counts), GPU_CLASS)
    assert result is not None
    return result


def test_a_plan_pairs_what_fills_a_gpu_together() -> None:
    """Two of 700 leave 300 each, which only the small shape can use: the plan keeps it for that."""
    everyone = fleet([Node("n", 16000, 65536, 4, "A")])
    large, small = shape_of(1000, 1, 700), shape_of(1000, 1, 300)
    the_plan = made(everyone, {large: 1.0, small: 1.0})
    places = [the_plan.places(large), the_plan.places(small)]
    assert [table.tolist() for table in places if table is not None] == [[[1, 1, 1, 1]], [[1, 1, 1, 1]]]
    assert the_plan.device_slack.tolist() == [[0, 0, 0, 0]]


def test_a_plan_keeps_hosts_with_many_cpus_for_requests_that_need_them() -> None:
    everyone = fleet([Node("lean", 4000, 65536, 4, "A"), Node("rich", 32000, 65536, 4, "A")])
    light, heavy = shape_of(1000, 1, 1000), shape_of(8000, 1, 1000)
    the_plan = made(everyone, {light: 1.0, heavy: 1.0})
    light_places, heavy_places = the_plan.places(light), the_plan.places(heavy)
    assert light_places is not None
    assert heavy_places is not None
    assert (int(light_places[0].sum()), int(heavy_places[1].sum())) == (4, 4)


def test_what_a_request_takes_from_others_is_no_longer_planned() -> None:
    everyone = fleet([Node("n", 16000, 65536, 1, "A")])
    half, whole = shape_of(1000, 1, 500), shape_of(1000, 1, 1000)
    the_plan = made(everyone, {half: 1.0})
    assert len(the_plan) == 2
    everyone.usage[GPU_CLASS][0] = 1000
    the_plan.took(0, whole, (0,))
    assert len(the_plan) == 0
    assert the_plan.device_slack.tolist() == [[0]]


def test_without_a_request_for_devices_there_is_no_plan() -> None:
    everyone = fleet([Node("n", 16000, 65536, 1, "A")])
    assert plan.make(everyone, Mix({shape_of(1000, 0, 0): 1.0}), GPU_CLASS) is None


def test_without_devices_there_is_no_plan() -> None:
    everyone = fleet([Node("n", 16000, 65536, 0, "A")])
    assert plan.make(everyone, Mix({shape_of(1000, 1, 1000): 1.0}), GPU_CLASS) is None


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_is_planned_fits_at_all_times(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [
        Node(f"n{i}", rng.choice([4000, 16000, 32000]), rng.choice([512, 65536]), rng.randint(0, 4), rng.choice("AB"))
        for i in range(rng.randint(1, 6))
    ]
    everyone = fleet(nodes)
    shapes = [
        shape_of(rng.choice([1000, 3152, 8000]), gpus, 1000 if gpus > 1 else rng.choice([110, 500, 650, 1000]), models)
        for gpus in (0, 1, 1, 2)
        for models in (frozenset(), frozenset({"A"}))
    ]
    the_plan = plan.make(everyone, Mix(dict.fromkeys(shapes, 1.0)), GPU_CLASS)
    if the_plan is None:
        return
    for _ in range(12):
        assert (the_plan.device_slack >= 0).all()
        for name in ("VCPU", "MEMORY_MB"):
            slack = the_plan.own_slack(name)
            assert slack is None or (slack >= 0).all()
        free, cpus = everyone.device_free(GPU_CLASS), everyone.free("VCPU")
        shape = rng.choice(shapes)
        asked = dict(shape.own)
        amount, count = (shape.need.amount, shape.need.count) if shape.need else (1, 0)
        fitting = [
            host for host in range(len(nodes)) if cpus[host] >= asked["VCPU"] and (free[host] >= amount).sum() >= count
        ]
        if not fitting:
            continue
        host = rng.choice(fitting)
        devices = [device for device in range(free.shape[1]) if free[host, device] >= amount][:count]
        everyone.usage["VCPU"][everyone.own_rows("VCPU")[host]] += asked["VCPU"]
        for device in devices:
            everyone.usage[GPU_CLASS][everyone.device_rows(GPU_CLASS)[host, device]] += amount
        the_plan.took(host, shape, tuple(devices))


def test_the_same_input_gives_the_same_plan() -> None:
    def run() -> list[list[int]]:
        everyone = fleet([Node(f"n{i}", 16000 + 1000 * i, 65536, 4, "A") for i in range(6)])
        mix = {shape_of(1000 * cpu, 1, milli): 1.0 for cpu in (1, 3, 5) for milli in (320, 470, 650, 1000)}
        return made(everyone, mix).device_slack.tolist()

    assert run() == run()


def test_without_a_history_no_plan_is_made_before_some_requests_were_seen() -> None:
    outlook = Outlook()
    everyone = fleet([Node(f"n{i}", 96000, 393216, 8, "A") for i in range(10)], outlook)
    planner = Planner(everyone)
    whole = shape_of(1000, 1, 1000)
    plans = []
    for _ in range(30):
        planner.request()
        plans.append(outlook.plan is not None)
        outlook.saw(whole)
    assert plans.index(True) == 10


@pytest.mark.parametrize("history", [{}, {shape_of(1000, 1, 500): 3}])
def test_a_history_is_not_learned_over(history: dict[Shape, float]) -> None:
    outlook = Outlook(Counter(history))
    other = shape_of(2000, 1, 1000)
    outlook.saw(other)
    assert outlook.mix is not None
    assert set(outlook.mix.shares) == (set(history) or {other})
    assert np.isclose(sum(outlook.mix.shares.values()), 1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from([300, 500, 700, -300])), max_size=12))
def test_a_plan_that_catches_up_keeps_no_place_that_is_gone(changes: list[tuple[int, int, int]]) -> None:
    everyone = fleet([Node("a", 16000, 65536, 3, "A"), Node("b", 16000, 65536, 3, "A")])
    shapes = [shape_of(1000, 1, 700), shape_of(1000, 1, 300), shape_of(1000, 2, 1000)]
    the_plan = made(everyone, dict.fromkeys(shapes, 1.0))
    for host, device, amount in changes:
        used = everyone.usage[GPU_CLASS]
        row = int(everyone.device_rows(GPU_CLASS)[host, device])
        used[row] = min(1000, max(0, int(used[row]) + amount))
        the_plan.catch_up(everyone)
        free = everyone.device_free(GPU_CLASS)
        kept = np.zeros_like(free)
        for shape in shapes:
            places = the_plan.places(shape)
            if places is not None and shape.need is not None:
                kept += places * shape.need.amount
        assert (the_plan.device_slack == free - kept).all()
        assert (the_plan.device_slack >= 0).all()


def test_the_place_that_was_kept_for_a_placement_is_the_one_that_goes() -> None:
    everyone = fleet([Node("n", 16000, 65536, 1, "A")])
    large, small = shape_of(1000, 1, 700), shape_of(1000, 1, 300)
    the_plan = made(everyone, {large: 1.0, small: 1.0})
    everyone.usage[GPU_CLASS][0] = 300
    the_plan.catch_up(everyone)
    left = [the_plan.places(shape) for shape in (large, small)]
    assert [table.tolist() for table in left if table is not None] == [[[1]], [[0]]]
