# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools

import numpy as np
import pytest
from fleets import PictureBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import conf as options
from accelsched.scheduler import hosts, pipeline, plugins, request
from accelsched.scheduler.filters.base import HostFilter
from accelsched.scheduler.hosts import HostRow, Hosts
from accelsched.scheduler.ranking import Ranking, usage_of
from accelsched.scheduler.request import RequestSpec

FLEETS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=7)
MULTIPLIERS = st.fixed_dictionaries(
    {
        f"{name}_weight_multiplier": st.sampled_from([-1.0, 0.0, 0.5, 1.0])
        for name in ("ram", "cpu", "disk", "accelerator_pack")
    }
)
SPECS = st.sampled_from(
    [
        {},
        {"resources:VGPU": "1"},
        {"resources1:VGPU": "2"},
        {"resources1:VGPU": "1", "resources2:VGPU": "1", "group_policy": "isolate"},
        {"resources1:VGPU": "1", "resources2:VGPU": "1", "group_policy": "none"},
    ]
)


def fleet(sizes: list[tuple[int, int, int]]) -> PictureBuilder:
    builder = PictureBuilder()
    for number, (gpus, vgpus, cpus) in enumerate(sizes):
        builder.host(f"h{number}", gpus=gpus, vgpus=vgpus, cpus=cpus)
    return builder


def spec_of(extra: dict[str, str]) -> RequestSpec:
    flavor = {"name": "f", "vcpus": 1, "ram_mb": 1024, "disk_gb": 1, "extra_specs": extra}
    return request.build(flavor, None, project_id="p")  # type: ignore[arg-type]


@functools.cache
def loaded(**overrides: object) -> plugins.Plugins:
    conf = options.new()
    options.parse(conf, [], "test")
    for name, value in overrides.items():
        conf.set_override(name, value, group="scheduler" if name in conf.scheduler else "filter_scheduler")
    return plugins.load(conf)


def ranking_of(builder: PictureBuilder, spec: RequestSpec, chosen: plugins.Plugins) -> Ranking:
    picture = builder.picture()
    everyone = hosts.align(picture, builder.hosts, usage_of(picture))
    allowed = np.ones(len(everyone), dtype=np.bool_)
    turn = pipeline.lots(len(everyone), "s")
    return Ranking(everyone, spec, spec.query(), allowed, chosen.filters, chosen.weighers, turn)


@settings(max_examples=60, deadline=None)
@given(sizes=FLEETS, extra=SPECS, multipliers=MULTIPLIERS, count=st.integers(1, 40))
def test_a_batch_goes_where_its_servers_would_go_one_after_the_other(
    sizes: list[tuple[int, int, int]], extra: dict[str, str], multipliers: dict[str, float], count: int
) -> None:
    builder, spec, chosen = fleet(sizes), spec_of(extra), loaded(**multipliers)
    one_by_one = ranking_of(builder, spec, chosen)
    if not one_by_one.exact:
        return  # these are placed one after the other anyway
    expected = []
    while len(expected) < count and len(best := one_by_one.best()):
        devices = [one_by_one.chosen(table, best) for table in one_by_one.devices]
        expected.append((one_by_one.hosts.rows[int(best[0])].name, [d[0].tolist() for d in devices]))
        one_by_one.take(best, devices, 1)
    together = ranking_of(builder, spec, chosen)
    got = pipeline.place(together, count, None)  # type: ignore[arg-type]
    assert [selection.host.name for selection in got] == [name for name, _ in expected]
    assert np.array_equal(together.total, one_by_one.total)
    for name, used in one_by_one.hosts.usage.items():
        assert np.array_equal(used, together.hosts.usage[name])
    assert np.array_equal(together.hosts.placed, one_by_one.hosts.placed)


@settings(max_examples=30, deadline=None)
@given(sizes=FLEETS, extra=SPECS, multipliers=MULTIPLIERS)
def test_scoring_some_hosts_anew_is_scoring_them_from_the_start(
    sizes: list[tuple[int, int, int]], extra: dict[str, str], multipliers: dict[str, float]
) -> None:
    builder, spec, chosen = fleet(sizes), spec_of(extra), loaded(**multipliers)
    ranking = ranking_of(builder, spec, chosen)
    before = ranking.total.copy()
    ranking.refresh(np.arange(0, len(sizes), 2))
    assert np.array_equal(before, ranking.total)


class OneEachFilter(HostFilter):
    """Allows one server of a request on a host."""

    def mask(self, hosts: Hosts, request: RequestSpec) -> np.ndarray:
        return hosts.placed < 1

    def host_passes(self, host: HostRow, request: RequestSpec) -> bool:
        raise NotImplementedError


def test_a_filter_is_asked_again_about_a_host_that_got_a_server() -> None:
    builder = fleet([(0, 1, 8)] * 5)
    chosen = loaded()
    one_each = plugins.Plugins(chosen.prefilters, (OneEachFilter(options.new()),), chosen.weighers)
    decision = pipeline.decide(builder.picture(), builder.hosts, spec_of({}), 9, one_each, "s")
    assert sorted(selection.host.name for selection in decision.selections) == ["h0", "h1", "h2", "h3", "h4"]


@pytest.mark.parametrize("extra", [{}, {"resources1:VGPU": "1"}])
def test_parts_of_a_score_add_up(extra: dict[str, str]) -> None:
    builder = fleet([(2, 4, 8), (1, 4, 4), (3, 2, 2)])
    decision = pipeline.decide(builder.picture(), builder.hosts, spec_of(extra), 6, loaded(), "s")
    for selection in decision.selections:
        score = selection.score.host
        assert score.score == pytest.approx(sum(part["weighted"] for part in score.weighers.values()))
