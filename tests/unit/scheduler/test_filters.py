# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Each filter does what Nova documents of its namesake."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleets import PictureBuilder
from plugins_alone import aggregate, aligned, asked, made, passing, tally

from accelsched import errors
from accelsched.scheduler.attributes import HostState
from accelsched.scheduler.facts import Group
from accelsched.scheduler.filters.address import SimpleCIDRAffinityFilter
from accelsched.scheduler.filters.aggregates import (
    AggregateImagePropertiesIsolation,
    AggregateInstanceExtraSpecsFilter,
    AggregateMultiTenancyIsolation,
    AggregateTypeAffinityFilter,
)
from accelsched.scheduler.filters.all_hosts import AllHostsFilter
from accelsched.scheduler.filters.base import HostFilter
from accelsched.scheduler.filters.capabilities import ComputeCapabilitiesFilter
from accelsched.scheduler.filters.compute import ComputeFilter
from accelsched.scheduler.filters.forced_host import ForcedHostFilter
from accelsched.scheduler.filters.image_properties import ImagePropertiesFilter
from accelsched.scheduler.filters.isolated_hosts import IsolatedHostsFilter
from accelsched.scheduler.filters.json_query import JsonFilter
from accelsched.scheduler.filters.load import (
    AggregateIoOpsFilter,
    AggregateNumInstancesFilter,
    IoOpsFilter,
    NumInstancesFilter,
)
from accelsched.scheduler.filters.metrics import MetricsFilter
from accelsched.scheduler.filters.other_servers import DifferentHostFilter, SameHostFilter
from accelsched.scheduler.filters.server_groups import ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter
from accelsched.scheduler.request import RequestSpec


def fleet(**hosts: Any) -> PictureBuilder:
    """Return hosts by name, each with fields of HostRow."""
    builder = PictureBuilder()
    for name, fields in hosts.items():
        builder.host(name, **fields)
    return builder


def in_aggregates(**metadata: dict[str, str] | None) -> PictureBuilder:
    """Return hosts by name, each in an aggregate with this metadata, or in none."""
    return fleet(
        **{
            name: {} if of is None else {"aggregates": (aggregate(f"of-{name}", **of),)}
            for name, of in metadata.items()
        }
    )


def test_all_hosts_passes_all() -> None:
    hosts = aligned(fleet(a={}, b={"disabled": True}))
    assert passing(made(AllHostsFilter), hosts, asked()) == {"a", "b"}


def test_compute_passes_hosts_in_service() -> None:
    hosts = aligned(fleet(a={"silent_s": 59.0}, b={"silent_s": 61.0}, c={"disabled": True}, d={"forced_down": True}))
    assert passing(made(ComputeFilter), hosts, asked()) == {"a"}
    assert passing(made(ComputeFilter, service_down_time=100), hosts, asked()) == {"a", "b"}


@pytest.mark.parametrize(
    ("about", "left"),
    [
        ({}, {"a", "b", "c"}),
        ({"host": "b"}, {"b"}),
        ({"host": "nowhere"}, set()),
        ({"hypervisor_hostname": "c.example"}, {"c"}),
        ({"host": "a", "hypervisor_hostname": "c.example"}, set()),
        ({"ignore_hosts": ("a", "c")}, {"b"}),
    ],
)
def test_forced_host_passes_what_the_request_names(about: dict[str, Any], left: set[str]) -> None:
    hosts = aligned(fleet(a={}, b={}, c={"hypervisor": {"hostname": "c.example"}}))
    assert passing(made(ForcedHostFilter), hosts, asked(**about)) == left


@pytest.mark.parametrize(
    ("properties", "namespace", "left"),
    [
        ({}, None, {"plain", "windows", "mixed"}),
        ({"os_distro": "windows"}, None, {"plain", "windows", "mixed"}),
        ({"os_distro": "debian"}, None, {"plain", "mixed"}),
        ({"os_distro": "debian"}, "os", {"plain", "windows", "mixed"}),
        ({"hw.os_distro": "debian"}, "hw", {"plain", "windows", "mixed"}),
    ],
)
def test_aggregate_image_properties_keep_other_images_out(
    properties: dict[str, str], namespace: str | None, left: set[str]
) -> None:
    hosts = aligned(in_aggregates(plain=None, windows={"os_distro": "windows"}, mixed={"os_distro": "debian, windows"}))
    filter_ = made(AggregateImagePropertiesIsolation, aggregate_image_properties_isolation_namespace=namespace)
    assert passing(filter_, hosts, asked(properties=properties)) == left


@pytest.mark.parametrize(
    ("specs", "left"),
    [
        ({}, {"none", "fast", "both"}),
        ({"aggregate_instance_extra_specs:ssd": "true"}, {"fast", "both"}),
        ({"ssd": "true"}, {"fast", "both"}),
        ({"aggregate_instance_extra_specs:rack": "<or> r1 <or> r9"}, {"both"}),
        ({"aggregate_instance_extra_specs:gen": ">= 4"}, {"both"}),
        ({"aggregate_instance_extra_specs:missing": "x"}, set()),
        ({"hw:cpu_policy": "shared", "resources:VGPU": "1", "group_policy": "none"}, {"none", "fast", "both"}),
    ],
)
def test_aggregate_extra_specs_are_met_by_metadata(specs: dict[str, str], left: set[str]) -> None:
    hosts = aligned(in_aggregates(none=None, fast={"ssd": "true"}, both={"ssd": "true", "rack": "r1,r2", "gen": "5"}))
    assert passing(made(AggregateInstanceExtraSpecsFilter), hosts, asked(specs)) == left


@pytest.mark.parametrize(
    ("project", "left"), [("p", {"free", "one", "many"}), ("q", {"free", "many"}), ("r", {"free"})]
)
def test_aggregates_keep_hosts_for_their_projects(project: str, left: set[str]) -> None:
    hosts = aligned(
        in_aggregates(
            free=None, one={"filter_tenant_id": "p"}, many={"filter_tenant_id": "q, x", "filter_tenant_id2": "p"}
        )
    )
    assert passing(made(AggregateMultiTenancyIsolation), hosts, asked(project_id=project)) == left


def test_aggregates_keep_hosts_for_their_flavors() -> None:
    hosts = aligned(in_aggregates(free=None, own={"instance_type": "big, small"}, other={"instance_type": "big"}))
    assert passing(made(AggregateTypeAffinityFilter), hosts, asked()) == {"free", "own"}


@pytest.mark.parametrize(
    ("kind", "count", "key"),
    [
        (IoOpsFilter, "io_ops", "max_io_ops_per_host"),
        (NumInstancesFilter, "servers", "max_instances_per_host"),
        (AggregateIoOpsFilter, "io_ops", "max_io_ops_per_host"),
        (AggregateNumInstancesFilter, "servers", "max_instances_per_host"),
    ],
)
def test_a_host_takes_no_more_than_the_bound(kind: type, count: str, key: str) -> None:
    builder = fleet(a={}, b={}, c={})
    hosts = aligned(builder, placed={"b": 1}, counts={count: tally(builder, a=2, b=1, c=1)})
    assert passing(made(kind, **{key: 2}), hosts, asked()) == {"c"}
    assert kind.needs == {count}
    assert not kind.once_per_request


@pytest.mark.parametrize(
    ("kind", "count", "key"),
    [
        (AggregateIoOpsFilter, "io_ops", "max_io_ops_per_host"),
        (AggregateNumInstancesFilter, "servers", "max_instances_per_host"),
    ],
)
def test_aggregates_override_the_bound_and_the_least_of_several_wins(kind: type, count: str, key: str) -> None:
    two, five, junk = (
        aggregate("two", **{key: "2"}),
        aggregate("five", **{key: "5"}),
        aggregate("junk", **{key: "many"}),
    )
    builder = fleet(
        plain={}, low={"aggregates": (two, five)}, high={"aggregates": (five,)}, bad={"aggregates": (junk, five)}
    )
    hosts = aligned(builder, counts={count: tally(builder, plain=2, low=2, high=4, bad=2)})
    assert passing(made(kind, **{key: 3}), hosts, asked()) == {"plain", "high", "bad"}
    hosts = aligned(builder, counts={count: tally(builder, plain=3, low=1, high=5, bad=3)})
    assert passing(made(kind, **{key: 3}), hosts, asked()) == {"low"}


def located(builder: PictureBuilder) -> Any:
    return aligned(builder, located={"one": "a", "two": "b"})


@pytest.mark.parametrize(
    ("hint", "same", "different"),
    [
        (None, {"a", "b", "c"}, {"a", "b", "c"}),
        ("one", {"a"}, {"b", "c"}),
        (["one", "two"], {"a", "b"}, {"c"}),
        (["gone"], set(), {"a", "b", "c"}),
    ],
)
def test_same_and_different_host_follow_the_servers_named(hint: Any, same: set[str], different: set[str]) -> None:
    hosts = located(fleet(a={}, b={}, c={}))
    for kind, name, left in ((SameHostFilter, "same_host", same), (DifferentHostFilter, "different_host", different)):
        spec = asked(hints={} if hint is None else {name: hint})
        assert passing(made(kind), hosts, spec) == left


@pytest.mark.parametrize(
    ("hints", "left"),
    [
        ({}, {"near", "far", "six", "silent"}),
        ({"build_near_host_ip": "10.0.1.200"}, {"near"}),
        ({"build_near_host_ip": "10.0.1.200", "cidr": "/16"}, {"near", "far"}),
        ({"build_near_host_ip": "fd00::1", "cidr": "/64"}, {"six"}),
        ({"build_near_host_ip": "192.0.2.1"}, set()),
    ],
)
def test_simple_cidr_affinity_passes_hosts_in_the_network(hints: dict[str, str], left: set[str]) -> None:
    hosts = aligned(
        fleet(
            near={"hypervisor": {"host_ip": "10.0.1.7"}},
            far={"hypervisor": {"host_ip": "10.0.2.7"}},
            six={"hypervisor": {"host_ip": "fd00::7"}},
            silent={},
        )
    )
    assert passing(made(SimpleCIDRAffinityFilter), hosts, asked(hints=hints)) == left


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(errors.InvalidError, match="cidr"):
        made(SimpleCIDRAffinityFilter).mask(
            aligned(fleet(a={})), asked(hints={"build_near_host_ip": "10.0.0.1", "cidr": "/99"})
        )


@pytest.mark.parametrize(
    ("isolated_image", "restrict", "left"),
    [(True, True, {"iso"}), (False, True, {"other"}), (True, False, {"iso"}), (False, False, {"iso", "other"})],
)
def test_isolated_hosts_follow_novas_table(isolated_image: bool, restrict: bool, left: set[str]) -> None:
    filter_ = made(
        IsolatedHostsFilter,
        isolated_hosts=["iso"],
        isolated_images=["image"] if isolated_image else ["another"],
        restrict_isolated_hosts_to_isolated_images=restrict,
    )
    assert passing(filter_, aligned(fleet(iso={}, other={})), asked(properties={})) == left


KVM = {"type": "QEMU", "version": 8002000, "hostname": "h", "cpu_arch": "x86_64", "virt_type": "kvm"}
ARM = {**KVM, "cpu_arch": "aarch64", "virt_type": "qemu", "version": 7000000}


@pytest.mark.parametrize(
    ("specs", "left"),
    [
        ({}, {"a", "b"}),
        ({"capabilities:hypervisor_type": "QEMU"}, {"a", "b"}),
        ({"capabilities:hypervisor_version": ">= 8000000"}, {"a"}),
        ({"capabilities:cpu_info:arch": "<in> arm"}, set()),
        ({"capabilities:cpu_info:arch": "<or> aarch64 <or> ppc64"}, {"b"}),
        ({"capabilities:cpu_info:features": "<all-in> aes avx"}, {"a"}),
        ({"capabilities:vcpus_total": ">= 32"}, {"b"}),
        ({"capabilities:free_ram_mb": ">= 1"}, {"a", "b"}),
        ({"capabilities:no_such_thing": "x"}, set()),
        ({"vcpus_total": "== 16"}, {"a"}),
        ({"unscoped_and_unknown": "x", "group_policy": "none", "hw:numa_nodes": "2"}, {"a", "b"}),
    ],
)
def test_compute_capabilities_are_matched_by_operators(specs: dict[str, str], left: set[str]) -> None:
    hosts = aligned(
        fleet(
            a={"hypervisor": {**KVM, "cpu_info": {"features": ["aes", "avx", "mmx"]}}},
            b={"hypervisor": ARM, "cpus": 32},
        )
    )
    assert passing(made(ComputeCapabilitiesFilter), hosts, asked(specs)) == left


@pytest.mark.parametrize(
    ("properties", "left"),
    [
        (None, {"kvm", "arm", "mute", "sim"}),
        ({}, {"kvm", "arm", "mute", "sim"}),
        ({"hw_architecture": "x86_64"}, {"kvm", "sim"}),
        ({"hw_architecture": "amd64"}, {"kvm", "sim"}),
        ({"hw_architecture": "aarch64"}, {"arm"}),
        ({"img_hv_type": "kvm"}, {"kvm", "sim"}),
        ({"img_hv_type": "qemu"}, {"kvm", "arm", "sim"}),
        ({"hw_vm_mode": "hvm"}, {"kvm", "arm", "mute", "sim"}),
        ({"hw_vm_mode": "xen"}, set()),
        ({"img_hv_requested_version": ">=8.0, <9"}, {"kvm", "sim"}),
        ({"img_hv_requested_version": "about eight"}, set()),
        ({"hw_architecture": "x86_64", "img_hv_type": "kvm", "img_hv_requested_version": ">=9"}, set()),
    ],
)
def test_image_properties_are_what_the_hypervisor_runs(properties: dict[str, str] | None, left: set[str]) -> None:
    hosts = aligned(
        fleet(
            kvm={"hypervisor": KVM},
            arm={"hypervisor": ARM},
            mute={},
            sim={"hypervisor": {**KVM, "virt_type": "simulated"}},
        )
    )
    assert passing(made(ImagePropertiesFilter), hosts, asked(properties=properties)) == left


def test_an_image_without_architecture_has_the_default_one() -> None:
    hosts = aligned(fleet(kvm={"hypervisor": KVM}, arm={"hypervisor": ARM}))
    filter_ = made(ImagePropertiesFilter, image_properties_default_architecture="aarch64")
    assert passing(filter_, hosts, asked(properties={})) == {"arm"}
    assert passing(filter_, hosts, asked(properties={"hw_architecture": "x86_64"})) == {"kvm"}


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ([], {"a", "b"}),
        ([">=", "$vcpus_total", 32], {"b"}),
        (["and", [">=", "$free_ram_mb", 1024], ["<", "$vcpus_total", 32]], {"a"}),
        (["or", ["=", "$host", "a"], ["=", "$host", "b"]], {"a", "b"}),
        (["not", ["=", "$hypervisor_hostname", "h"]], {"b"}),
        (["in", "$host", "b", "c"], {"b"}),
        (["=", "$no_such_thing", "x"], set()),
        (["<", "$host", 5], set()),
        (["=", "$cpu_info.arch", "aarch64"], {"b"}),
        ([">=", "$vcpus_total"], set()),
    ],
)
def test_a_query_is_evaluated_over_hosts(query: list[Any], left: set[str]) -> None:
    hosts = aligned(fleet(a={"hypervisor": KVM}, b={"hypervisor": {**ARM, "hostname": "other"}, "cpus": 32}))
    for form in (query, json.dumps(query)):
        assert passing(made(JsonFilter), hosts, asked(hints={"query": form})) == left


@pytest.mark.parametrize("query", ["[", '["xor", 1, 2]', ["and", 5], {"a": 1}, "5", [["=", 1, 1]], ["=", {"a": 1}, 2]])
def test_a_query_that_is_none_is_refused(query: Any) -> None:
    with pytest.raises(errors.InvalidError, match="query"):
        made(JsonFilter).mask(aligned(fleet(a={})), asked(hints={"query": query}))


def test_a_query_may_not_be_arbitrarily_deep() -> None:
    query: list[Any] = ["=", 1, 1]
    for _ in range(100):
        query = ["not", query]
    with pytest.raises(errors.InvalidError, match="deeper"):
        made(JsonFilter).mask(aligned(fleet(a={})), asked(hints={"query": query}))


def test_metrics_passes_hosts_that_tell_all_of_them() -> None:
    hosts = aligned(
        fleet(all={"hypervisor": {"metrics": {"a": 1, "b": 0}}}, one={"hypervisor": {"metrics": {"a": 1}}}, none={})
    )
    assert passing(made(MetricsFilter, weight_setting=["a=1.0", "b=-1.0"]), hosts, asked()) == {"all"}
    assert passing(made(MetricsFilter), hosts, asked()) == {"all", "one", "none"}


@pytest.mark.parametrize(
    ("most", "placed", "left"),
    [(1, {}, {"b", "c"}), (2, {}, {"a", "b", "c"}), (1, {"b": 1}, {"c"}), (2, {"a": 1, "b": 1}, {"b", "c"})],
)
def test_anti_affinity_counts_members_and_what_was_just_placed(
    most: int, placed: dict[str, int], left: set[str]
) -> None:
    builder = fleet(a={}, b={}, c={})
    hosts = aligned(builder, placed, group=Group("anti-affinity", most, tally(builder, a=1)))
    assert passing(made(ServerGroupAntiAffinityFilter), hosts, asked(hints={"group": "g"})) == left


@pytest.mark.parametrize(
    ("members", "placed", "left"),
    [({}, {}, {"a", "b", "c"}), ({"a": 2}, {}, {"a"}), ({}, {"b": 1}, {"b"}), ({"a": 1, "c": 1}, {}, {"a", "c"})],
)
def test_affinity_stays_where_members_are(members: dict[str, int], placed: dict[str, int], left: set[str]) -> None:
    builder = fleet(a={}, b={}, c={})
    hosts = aligned(builder, placed, group=Group("affinity", 1, tally(builder, **members)))
    assert passing(made(ServerGroupAffinityFilter), hosts, asked(hints={"group": "g"})) == left


@pytest.mark.parametrize("policy", ["soft-affinity", "soft-anti-affinity"])
def test_soft_policies_remove_nothing(policy: str) -> None:
    builder = fleet(a={}, b={})
    hosts = aligned(builder, group=Group(policy, 1, tally(builder, a=3)))
    for kind in (ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter):
        assert passing(made(kind), hosts, asked(hints={"group": "g"})) == {"a", "b"}


class Ported(HostFilter):
    """As a filter of Nova's reads: names of Nova's host state."""

    def host_passes(self, host: HostState, request: RequestSpec) -> bool:
        return (
            host.free_ram_mb >= 1024 and host.vcpus_total > 16 and host.hypervisor_type == "QEMU" and not host.disabled
        )


def test_a_filter_ported_from_nova_finds_what_it_knows_of_a_host() -> None:
    hosts = aligned(fleet(a={"hypervisor": KVM}, b={"hypervisor": KVM, "cpus": 32}, c={"cpus": 32}))
    assert passing(made(Ported), hosts, asked()) == {"b"}
