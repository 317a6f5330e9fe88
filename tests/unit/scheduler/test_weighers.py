# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Each weigher does what Nova documents of its namesake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fleets import PictureBuilder
from plugins_alone import aggregate, aligned, asked, made, tally, weights

from accelsched import conf as options
from accelsched import errors
from accelsched.scheduler import plugins
from accelsched.scheduler.facts import Group
from accelsched.scheduler.pipeline import decide
from accelsched.scheduler.weighers.base import NovaWeigher
from accelsched.scheduler.weighers.free_capacity import CPUWeigher, DiskWeigher, RAMWeigher
from accelsched.scheduler.weighers.hypervisor import CrossCellWeigher, HypervisorVersionWeigher
from accelsched.scheduler.weighers.image_properties import ImagePropertiesWeigher
from accelsched.scheduler.weighers.load import BuildFailureWeigher, IoOpsWeigher, NumInstancesWeigher
from accelsched.scheduler.weighers.metrics import MetricsWeigher
from accelsched.scheduler.weighers.pci import PCIWeigher
from accelsched.scheduler.weighers.server_groups import (
    ServerGroupSoftAffinityWeigher,
    ServerGroupSoftAntiAffinityWeigher,
)


def fleet(**hosts: Any) -> PictureBuilder:
    builder = PictureBuilder()
    for name, fields in hosts.items():
        builder.host(name, **fields)
    return builder


@pytest.mark.parametrize(
    ("kind", "multiplier"),
    [
        (RAMWeigher, 1.0),
        (CPUWeigher, 1.0),
        (DiskWeigher, 1.0),
        (IoOpsWeigher, -1.0),
        (NumInstancesWeigher, 0.0),
        (HypervisorVersionWeigher, 1.0),
        (PCIWeigher, 1.0),
        (ServerGroupSoftAffinityWeigher, 1.0),
        (ServerGroupSoftAntiAffinityWeigher, 1.0),
        (BuildFailureWeigher, 1000000.0),
        (CrossCellWeigher, 1000000.0),
        (ImagePropertiesWeigher, 0.0),
    ],
)
def test_multipliers_are_novas_and_aggregates_override_them(kind: type[NovaWeigher], multiplier: float) -> None:
    weigher = made(kind)
    assert weigher.multiplier == multiplier
    one, two, junk = (aggregate(value, **{kind.override: value}) for value in ("3.5", "-2", "much"))
    hosts = aligned(fleet(a={}, b={"aggregates": (one,)}, c={"aggregates": (one, two)}, d={"aggregates": (one, junk)}))
    np.testing.assert_array_equal(weigher.multipliers(hosts), [multiplier, 3.5, -2.0, multiplier])


def test_free_resources_are_what_is_left() -> None:
    hosts = aligned(fleet(a={"cpus": 4}, b={"cpus": 16}))
    hosts.usage["VCPU"][:] = 3
    hosts.usage["MEMORY_MB"][:] = 1024
    assert weights(made(CPUWeigher), hosts, asked()) == {"a": 1.0, "b": 13.0}
    assert weights(made(RAMWeigher), hosts, asked()) == {"a": 64512.0, "b": 64512.0}
    assert weights(made(DiskWeigher), hosts, asked()) == {"a": 1000.0, "b": 1000.0}


@pytest.mark.parametrize(("kind", "count"), [(IoOpsWeigher, "io_ops"), (NumInstancesWeigher, "servers")])
def test_servers_are_counted_with_those_just_placed(kind: type[NovaWeigher], count: str) -> None:
    builder = fleet(a={}, b={})
    hosts = aligned(builder, {"b": 2}, counts={count: tally(builder, a=5, b=1)})
    assert weights(made(kind), hosts, asked()) == {"a": 5.0, "b": 3.0}
    assert kind.needs == {count}


def test_newer_hypervisors_weigh_more() -> None:
    hosts = aligned(fleet(a={"hypervisor": {"version": 8002000}}, b={"hypervisor": {"version": 9000000}}, c={}))
    assert weights(made(HypervisorVersionWeigher), hosts, asked()) == {"a": 8002000.0, "b": 9000000.0, "c": 0.0}


def test_hosts_with_free_devices_weigh_less() -> None:
    builder = fleet(none={}, two={"gpus": 2}, half={"gpus": 2, "vgpus": 4, "used": 4}, many={"gpus": 120})
    for number in range(20):  # so that single hosts and many are looked at in different ways
        builder.host(f"more{number}", gpus=number % 3)
    found = weights(made(PCIWeigher), aligned(builder), asked())
    assert (found["none"], found["two"], found["half"], found["many"]) == (100.0, 98.0, 99.0, 1.0)
    assert found["more5"] == 98.0


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        (True, {"a": 5.0, "b": -1.0, "c": -10000.0}),
        (False, {"a": 5.0, "b": -1.0, "c": -10000.0}),
    ],
)
def test_metrics_are_added_up_by_their_ratios(required: bool, expected: dict[str, float]) -> None:
    builder = fleet(
        a={"hypervisor": {"metrics": {"x": 3, "y": 1}}},
        b={"hypervisor": {"metrics": {"x": 0, "y": 1}}},
        c={"hypervisor": {"metrics": {"x": 9}}},
    )
    weigher = made(MetricsWeigher, weight_setting=["x=2.0", "y=-1.0"], required=required)
    table = weigher.weigh(aligned(builder), asked())
    assert dict(zip("abc", table.tolist(), strict=True)) == expected
    assert made(MetricsWeigher).multiplier == 0.0


def test_a_required_metric_puts_hosts_without_it_last_whatever_the_others_weigh() -> None:
    builder = fleet(a={"hypervisor": {"metrics": {"x": -50000}}}, b={})
    table = made(MetricsWeigher, weight_setting=["x=1.0"]).weigh(aligned(builder), asked())
    assert table[1] < table[0]


def test_a_malformed_setting_names_its_option() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"\[metrics\] weight_setting"):
        made(MetricsWeigher, weight_setting=["x"])


@pytest.mark.parametrize(
    ("kind", "policy", "sign"),
    [
        (ServerGroupSoftAffinityWeigher, "soft-affinity", 1.0),
        (ServerGroupSoftAntiAffinityWeigher, "soft-anti-affinity", -1.0),
    ],
)
def test_soft_policies_weigh_members(kind: type[NovaWeigher], policy: str, sign: float) -> None:
    builder = fleet(a={}, b={})
    for of_group, expected in ((policy, {"a": sign * 2, "b": sign}), ("affinity", {"a": 0.0, "b": 0.0})):
        hosts = aligned(builder, {"b": 1}, group=Group(of_group, 1, tally(builder, a=2)))
        assert weights(made(kind), hosts, asked()) == expected


def test_failed_builds_count_against_a_host() -> None:
    assert weights(made(BuildFailureWeigher), aligned(fleet(a={"failed_builds": 3}, b={})), asked()) == {
        "a": -3.0,
        "b": 0.0,
    }


def test_cells_are_all_one() -> None:
    assert weights(made(CrossCellWeigher), aligned(fleet(a={}, b={})), asked()) == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize(
    ("setting", "expected"), [([], {"a": 5.0, "b": 1.0}), (["os_distro=2", "hw_disk_bus=0.5"], {"a": 7.0, "b": 2.0})]
)
def test_hosts_with_like_images_are_counted(setting: list[str], expected: dict[str, float]) -> None:
    both, distro = {"os_distro": "debian", "hw_disk_bus": "virtio"}, {"os_distro": "debian", "hw_disk_bus": "scsi"}
    builder = fleet(a={}, b={})
    hosts = aligned(builder, images={"a": ((both, 2), (distro, 1)), "b": ((distro, 1),)})
    weigher = made(ImagePropertiesWeigher, image_props_weight_setting=setting)
    assert weights(weigher, hosts, asked(properties=both)) == expected


def loaded() -> plugins.Plugins:
    conf = options.new()
    options.parse(conf, [], "test")
    return plugins.load(conf)


def test_an_aggregate_may_turn_a_weigher_round_for_its_hosts() -> None:
    away = aggregate("away", cpu_weight_multiplier="-1000")
    builder = fleet(a={"aggregates": (away,)}, b={"cpus": 2})
    (selection,) = decide(builder.picture(), builder.hosts, asked(), 1, loaded(), "s").selections
    assert selection.host.name == "b"


def test_soft_anti_affinity_spreads_a_request_and_soft_affinity_keeps_it_together() -> None:
    for policy, most in (("soft-anti-affinity", 2), ("soft-affinity", 8)):
        builder = fleet(a={"cpus": 64}, b={"cpus": 64}, c={"cpus": 64}, d={"cpus": 64})
        conf = options.new()
        options.parse(conf, [], "test")
        for name in ("soft_affinity", "soft_anti_affinity"):
            conf.set_override(f"{name}_weight_multiplier", 1e6, group="filter_scheduler")
        facts = builder.facts(group=Group(policy, 1, tally(builder)))
        decision = decide(builder.picture(), facts, asked(hints={"group": "g"}), 8, plugins.load(conf), "s")
        names = [selection.host.name for selection in decision.selections]
        assert max(names.count(name) for name in names) == most


@pytest.mark.parametrize("extra", [{}, {"resources:VGPU": "1"}, {"resources1:VGPU": "1", "resources2:VGPU": "1"}])
@pytest.mark.parametrize(
    ("policy", "most", "placed", "on_one"),
    [("anti-affinity", 1, 3, 1), ("anti-affinity", 2, 5, 2), ("affinity", 1, 4, 4)],
)
def test_a_groups_policy_holds_within_one_request(
    extra: dict[str, str], policy: str, most: int, placed: int, on_one: int
) -> None:
    builder = fleet(**{name: {"gpus": 2, "cpus": 4} for name in "abcd"})
    members = tally(builder, a=1) if policy == "anti-affinity" else tally(builder)
    facts = builder.facts(group=Group(policy, most, members))
    decision = decide(builder.picture(), facts, asked(extra, hints={"group": "g"}), 5, loaded(), "s")
    names = [selection.host.name for selection in decision.selections]
    assert len(names) == placed
    assert max(names.count(name) for name in names) == on_one
    if policy == "anti-affinity":
        assert names.count("a") == most - 1
    else:
        assert set(names) == {names[0]}
