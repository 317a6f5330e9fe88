# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from fleets import PictureBuilder, partitioned
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import conf as options
from accelsched import errors
from accelsched.placement.partitioning import Budget, Held, OneType, Profile, Rule, Slices
from accelsched.scheduler import plugins, request
from accelsched.scheduler.pipeline import Decision, decide


def loaded(**overrides: object) -> plugins.Plugins:
    conf = options.new()
    options.parse(conf, [], "test")
    for name, value in overrides.items():
        conf.set_override(name, value, group="scheduler")
    return plugins.load(conf)


def place(
    builder: PictureBuilder,
    count: int = 1,
    *,
    seed: str = "s",
    host: str | None = None,
    providers: Mapping[str, str] | None = None,
    **specs: str,
) -> Decision:
    extra = {key.replace("__", ":"): value for key, value in specs.items()}
    flavor = {"name": "f", "vcpus": 1, "ram_mb": 1024, "disk_gb": 1, "extra_specs": extra}
    spec = request.build(flavor, None, project_id="p", host=host, providers=providers)  # type: ignore[arg-type]
    return decide(builder.picture(), builder.hosts, spec, count, loaded(), seed)


def test_forty_servers_in_one_call_fill_ten_hosts_of_four_gpus() -> None:
    """Nova's bug 1874664: it would place ten and give up."""
    builder = PictureBuilder()
    for number in range(10):
        builder.host(f"h{number}", gpus=4, vgpus=1)
    decision = place(builder, 41, resources__VGPU="1")
    gpus = Counter(d["provider_name"] for s in decision.selections for d in s.devices if "VGPU" in d["resources"])
    assert len(decision.selections) == 40
    assert set(gpus.values()) == {1}
    assert "Only 40 of 41 servers fit" in (decision.explanation.failure or "")


def test_a_gpu_in_use_is_filled_before_an_empty_one_is_opened() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=2)
    builder.host("b", gpus=2, used=3)
    decision = place(builder, resources__VGPU="1")
    (selection,) = decision.selections
    assert [d["provider_name"] for d in selection.devices] == ["b", "b_gpu_0"]
    assert selection.score.devices["VGPU"] == {"b_gpu_0": 0.375, "b_gpu_1": 0.0}


def test_a_group_whose_device_is_named_gets_that_one_or_none() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=2, vgpus=2)
    free = place(builder, resources_x__VGPU="1", resources_y__VGPU="2")
    (uuid,) = {d["provider_uuid"] for d in free.selections[0].devices if d["group"] == "_y"}
    named = {d["group"]: d for d in place_named(builder, x=uuid).selections[0].devices}
    assert named["_x"]["provider_uuid"] == uuid
    assert named["_y"]["provider_uuid"] != uuid
    assert place_named(builder, x=uuid, y=uuid).selections == ()
    assert place_named(builder, x="nobody").selections == ()


def place_named(builder: PictureBuilder, **named: str) -> Decision:
    providers = {f"_{group}": uuid for group, uuid in named.items()}
    return place(builder, providers=providers, resources_x__VGPU="1", resources_y__VGPU="2")


def test_groups_that_are_alike_share_a_gpu_unless_they_are_to_be_isolated() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1, vgpus=4)
    together = place(builder, 3, resources1__VGPU="1", resources2__VGPU="1")
    gpus = [d["provider_name"] for s in together.selections for d in s.devices if "VGPU" in d["resources"]]
    assert gpus == ["a_gpu_0"] * 4
    apart = place(builder, resources1__VGPU="1", resources2__VGPU="1", group_policy="isolate")
    assert not apart.selections


def test_identical_empty_hosts_are_used_evenly() -> None:
    builder = PictureBuilder()
    for number in range(4):
        builder.host(f"h{number}")
    used = Counter(selection.host.name for selection in place(builder, 8).selections)
    assert set(used.values()) == {2}


def test_different_requests_begin_at_different_hosts() -> None:
    builder = PictureBuilder()
    for number in range(20):
        builder.host(f"h{number}")
    first = {place(builder, seed=str(seed)).selections[0].host.name for seed in range(10)}
    assert len(first) > 1
    assert place(builder, seed="x").selections == place(builder, seed="x").selections


@pytest.mark.parametrize("alive", [{"silent_s": 61.0}, {"disabled": True}, {"forced_down": True}])
def test_a_host_out_of_service_gets_nothing(alive: dict[str, float]) -> None:
    builder = PictureBuilder()
    builder.host("a", **alive)
    decision = place(builder)
    assert decision.selections == ()
    assert "ComputeFilter removed 1" in (decision.explanation.failure or "")


def test_a_request_that_names_its_host_gets_no_other() -> None:
    builder = PictureBuilder()
    builder.host("a")
    builder.host("b")
    assert place(builder, host="b").selections[0].host.name == "b"
    assert "the request names host c" in (place(builder, host="c").explanation.failure or "")


def test_a_failure_says_what_was_short() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1, vgpus=2)
    builder.host("b")
    failure = place(builder, resources__VGPU="3").explanation.failure
    assert failure == ("No valid host was found. 2 hosts looked at: VGPU removed 2 (asked 3, most free 2).")


def test_parts_that_fit_only_one_by_one_are_told_apart() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1, vgpus=3)
    decision = place(builder, resources1__VGPU="2", resources2__VGPU="2")
    assert "1 could not take all parts together" in (decision.explanation.failure or "")


def test_without_hosts_the_failure_asks_for_an_agent() -> None:
    assert "accelsched-agent" in (place(PictureBuilder()).explanation.failure or "")


def test_a_plug_in_that_is_not_installed_is_named() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"\[scheduler\] filters: no plug-in named NoSuchFilter"):
        loaded(filters=["NoSuchFilter"])


def gpus_under(builder: PictureBuilder, rule: Rule, *carried: dict[str, int]) -> None:
    """Add a host with a GPU for each of these loads."""
    builder.host("a")
    for number, used in enumerate(carried):
        inventories, partition = partitioned(rule, 6, used)
        builder.provider(f"gpu_{number}", inventories, builder.rows[0], partition=partition)


def test_a_gpu_that_another_size_took_room_of_is_filled_before_an_empty_one() -> None:
    builder = PictureBuilder()
    gpus_under(builder, Budget(24, {"CUSTOM_A": 4, "CUSTOM_B": 8}), {}, {"CUSTOM_B": 1})
    (selection,) = place(builder, resources__CUSTOM_A="1").selections
    assert selection.devices[1]["provider_name"] == "gpu_1"


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(
        [
            OneType(frozenset({"CUSTOM_A", "CUSTOM_B"})),
            Budget(24, {"CUSTOM_A": 4, "CUSTOM_B": 8}),
            Slices(8, 7, {"CUSTOM_A": Profile(1, 1, tuple(range(7))), "CUSTOM_B": Profile(4, 3, (0, 4))}),
        ]
    ),
    count=st.integers(1, 8),
    a=st.integers(0, 2),
    b=st.integers(0, 2),
)
def test_servers_placed_together_keep_capacity_rules(rule: Rule, count: int, a: int, b: int) -> None:
    """What one placement assumes, the next ones and the claim find true."""
    builder = PictureBuilder()
    gpus_under(builder, rule, {}, {})
    decision = place(builder, count, resources1__CUSTOM_A=str(a), resources2__CUSTOM_B=str(b))
    taken: dict[str, Counter[str]] = {"gpu_0": Counter(), "gpu_1": Counter()}
    for selection in decision.selections:
        for provider in taken.keys() & selection.allocations.keys():
            taken[provider].update(selection.allocations[provider])
    assert all(rule.allows(Held(amounts)) for amounts in taken.values())
    if len(decision.selections) < count:
        # One more would not have fitted, however its two parts were put.
        ways = [({"CUSTOM_A": a}, {"CUSTOM_B": b}), ({"CUSTOM_B": b}, {"CUSTOM_A": a})]
        ways += [({"CUSTOM_A": a, "CUSTOM_B": b}, {}), ({}, {"CUSTOM_A": a, "CUSTOM_B": b})]
        for one, other in ways:
            after = [Held(taken["gpu_0"]).plus(one), Held(taken["gpu_1"]).plus(other)]
            assert not all(rule.allows(held) and max(held.amounts.values(), default=0) <= 6 for held in after)


@settings(max_examples=40, deadline=None)
@given(
    fleet=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=5),
    count=st.integers(1, 20),
    vgpus=st.integers(1, 3),
)
def test_no_batch_takes_more_than_there_is_nor_leaves_what_fits(
    fleet: list[tuple[int, int, int]], count: int, vgpus: int
) -> None:
    builder = PictureBuilder()
    for number, (gpus, capacity, cpus) in enumerate(fleet):
        builder.host(f"h{number}", gpus=gpus, vgpus=capacity, cpus=cpus)
    decision = place(builder, count, resources__VGPU=str(vgpus))
    taken: Counter[tuple[str, str]] = Counter()
    for selection in decision.selections:
        for provider, amounts in selection.allocations.items():
            taken.update({(provider, name): amount for name, amount in amounts.items()})
    capacity_of = {(row.uuid, name): inv.total for row in builder.rows for name, inv in row.inventories.items()}
    assert all(amount <= capacity_of[key] for key, amount in taken.items())
    possible = sum(min(cpus, gpus * (capacity // vgpus)) for gpus, capacity, cpus in fleet)
    assert len(decision.selections) == min(count, possible)
