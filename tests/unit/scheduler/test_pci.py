# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI aliases: https://docs.openstack.org/nova/latest/admin/pci-passthrough.html"""

from __future__ import annotations

import json
from typing import Any

import numa_hosts
import numpy as np
import pytest
from fleets import PictureBuilder, inventory

from accelsched import conf as options
from accelsched import errors, wire
from accelsched.conf import pci as pci_options
from accelsched.conf.pci import Alias
from accelsched.placement.numa.topology import HostNuma
from accelsched.scheduler import hosts as hosts_
from accelsched.scheduler import plugins, request
from accelsched.scheduler.filters.numa_topology import NUMATopologyFilter
from accelsched.scheduler.filters.pci_passthrough import PciPassthroughFilter
from accelsched.scheduler.pipeline import Decision, decide
from accelsched.scheduler.ranking import usage_of

CLASS = "CUSTOM_PCI_10DE_20B0"
MODEL = "CUSTOM_PCI_DEVICE_10DE_20B0"


def configured(*aliases: dict[str, Any]) -> Any:
    conf = options.new()
    options.parse(conf, [], "test")
    conf.set_override("alias", [json.dumps(alias) for alias in aliases], group="pci")
    return conf


@pytest.mark.parametrize(
    ("told", "alias"),
    [
        (
            {"name": "a", "vendor_id": "10DE", "product_id": "20b0"},
            Alias("a", CLASS, (MODEL,), "legacy"),
        ),
        (
            {"name": "a", "resource_class": "gpu", "traits": "fast, HW_GPU_API_VULKAN", "numa_policy": "required"},
            Alias("a", "CUSTOM_GPU", ("CUSTOM_FAST", "HW_GPU_API_VULKAN"), "required"),
        ),
        (
            {"name": "a", "resource_class": "PGPU", "vendor_id": "10de", "device_type": "type-VF"},
            Alias("a", "PGPU", ("CUSTOM_PCI_TYPE_VF", "CUSTOM_PCI_VENDOR_10DE"), "legacy"),
        ),
    ],
)
def test_an_alias_is_a_class_and_traits(told: dict[str, Any], alias: Alias) -> None:
    assert pci_options.aliases(configured(told)) == {"a": alias}


@pytest.mark.parametrize(
    "told",
    [
        [{"name": "a"}],
        [{"name": "a", "vendor_id": "10de"}],
        [{"name": "a", "vendor_id": "10de", "product_id": "20b0", "live_migratable": "yes"}],
        [{"name": "a:b", "resource_class": "X"}],
        [{"name": "a", "resource_class": "X"}, {"name": "a", "resource_class": "Y"}],
    ],
)
def test_aliases_that_make_no_sense_are_refused_at_start(told: list[dict[str, Any]]) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"^\[pci\] alias: "):
        pci_options.check(configured(*told))


def asked(extra: dict[str, str], *, vcpus: int = 2, **numa_policy: str) -> request.RequestSpec:
    flavor: wire.FlavorSpec = {"name": "f", "vcpus": vcpus, "ram_mb": 1024, "disk_gb": 1, "extra_specs": extra}
    aliases = {"a100": Alias("a100", CLASS, (MODEL,), numa_policy.get("a100", "legacy"))}
    return request.build(flavor, None, project_id="p", aliases=aliases)


@pytest.mark.parametrize("text", ["a100", "a100:0", "a100:x", "a100:65", "a100:40,a100:40", "other:1", "a100:1;a100:1"])
def test_extra_specs_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidError, match="alias"):
        asked({"pci_passthrough:alias": text})


def test_each_device_is_a_group_and_survives_being_written_down() -> None:
    spec = asked({"pci_passthrough:alias": "a100:2"}, a100="required")
    groups = [group for group in spec.query().groups if group.suffix]
    assert [(group.resources, group.required) for group in groups] == [({CLASS: 1}, (frozenset({MODEL}),))] * 2
    assert spec.affinity(groups[0].suffix) == "required"
    again = request.RequestSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again.query() == spec.query()
    assert again.affinity(groups[1].suffix) == "required"


class Fleet(PictureBuilder):
    """Hosts with two NUMA nodes of eight dedicated CPUs and PCI devices."""

    def add(self, name: str, devices: list[int | None], numa: HostNuma | None = None) -> None:
        """Add a host.

        :param devices: the node of each, None for a device that does not tell
        """
        root = self.provider(
            name,
            {"PCPU": inventory(16), "MEMORY_MB": inventory(32768), "DISK_GB": inventory(1000)},
            traits=["COMPUTE_NODE"],
        )
        self.rows[-1] = root.__class__(**{**vars(root), "numa": numa_hosts.state() if numa is None else numa})
        for number, node in enumerate(devices):
            traits = [MODEL] if node is None else [MODEL, f"CUSTOM_NUMA_NODE_{node}"]
            self.provider(f"{name}/{number}", {CLASS: inventory(1)}, root, traits=traits)
        self.silent_s.append(0.0)
        self.table.append(hosts_.HostRow(name, name, "agent", True, False, False))

    def decide(self, spec: request.RequestSpec, count: int = 1, *filters: str) -> Decision:
        conf = options.new()
        options.parse(conf, [], "test")
        conf.set_override("filters", list(filters), group="scheduler")
        return decide(self.picture(), self.hosts, spec, count, plugins.load(conf), "seed")

    def masks(self, spec: request.RequestSpec) -> tuple[list[bool], list[bool]]:
        picture = self.picture()
        everyone = hosts_.align(picture, self.hosts, usage_of(picture))
        conf = options.new()
        numa = NUMATopologyFilter(conf).mask(everyone, spec)
        return PciPassthroughFilter(conf).mask(everyone, spec).tolist(), np.asarray(numa).tolist()


PINNED = {"hw:cpu_policy": "dedicated", "pci_passthrough:alias": "a100:1"}


@pytest.mark.parametrize(
    ("policy", "goes"),
    [("required", ["there"]), ("legacy", ["there", "unknown"]), ("preferred", ["there", "far", "unknown"])],
)
@pytest.mark.parametrize("filters", [(), ("NUMATopologyFilter", "PciPassthroughFilter")])
def test_where_a_server_goes_whose_node_has_a_device_elsewhere_or_nobody_knows(
    policy: str, goes: list[str], filters: tuple[str, ...]
) -> None:
    """On host far the node with the device is full. With the filters and without, the same servers fit."""
    full, free = numa_hosts.state()
    full = full.__class__(full.node, pinned=full.node.dedicated)
    fleet = Fleet()
    fleet.add("far", [0], (full, free))
    fleet.add("there", [1], (full, free))
    fleet.add("unknown", [None], (full, free))
    decision = fleet.decide(asked(PINNED, a100=policy), 3, *filters)
    assert {selection.host.name for selection in decision.selections} == set(goes)
    assert all(selection.numa and selection.numa[0].node == 1 for selection in decision.selections)
    if filters:
        assert fleet.masks(asked(PINNED, a100=policy)) == ([True] * 3, [n in goes for n in ("far", "there", "unknown")])


def test_the_flavors_policy_counts_before_the_aliass() -> None:
    assert asked({**PINNED, "hw:pci_numa_affinity_policy": "socket"}, a100="required").affinity("pci_0_0") == "socket"


def test_preferred_devices_are_on_the_servers_node_where_they_can_be() -> None:
    fleet = Fleet()
    fleet.add("h", [0, 0, 1, 1])
    decision = fleet.decide(asked({**PINNED, "pci_passthrough:alias": "a100:2"}, a100="preferred"), 2)
    chosen = []
    for selection in decision.selections:
        assert selection.numa is not None
        devices = {device["provider_name"] for device in selection.devices if device["group"]}
        chosen.append((selection.numa[0].node, devices))
    assert sorted(chosen) == [(0, {"h/0", "h/1"}), (1, {"h/2", "h/3"})]


def test_servers_on_two_nodes_get_devices_of_either() -> None:
    fleet = Fleet()
    fleet.add("h", [0, 1])
    spec = asked({**PINNED, "hw:numa_nodes": "2", "pci_passthrough:alias": "a100:2"}, a100="required")
    (selection,) = fleet.decide(spec, 1).selections
    assert selection.numa is not None
    assert {node.node for node in selection.numa} == {0, 1}


def test_too_few_devices_are_told_with_numbers() -> None:
    fleet = Fleet()
    fleet.add("h0", [0])
    fleet.add("h1", [0, 0])
    spec = asked({"pci_passthrough:alias": "a100:3", "hw:cpu_policy": "dedicated"})
    decision = fleet.decide(spec, 1, "PciPassthroughFilter")
    assert "PciPassthroughFilter removed 2 (PCI devices a100 asked: 3, most free 2)" in str(
        decision.explanation.failure
    )


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"hw:numa_nodes": "4", "hw:cpu_policy": "dedicated"}, "4 NUMA nodes asked, most on one host 2"),
        (
            {"hw:mem_page_size": "large", "hw:cpu_policy": "dedicated"},
            "MiB in large pages asked on one node: 1024, most free 0",
        ),
        ({"hw:numa_nodes": "1"}, "shared CPUs asked on one node: 2, most free 0"),
        (PINNED, "no host has a NUMA node with enough CPUs, memory and devices nearby together"),
    ],
)
def test_what_is_short_is_told_with_numbers(extra: dict[str, str], reason: str) -> None:
    spec = asked(extra, vcpus=4 if extra.get("hw:numa_nodes") == "4" else 2, a100="required")
    fleet = Fleet()
    full, free = numa_hosts.state()
    fleet.add("h", [0], (full.__class__(full.node, pinned=full.node.dedicated), free))
    filter_ = NUMATopologyFilter(options.new())
    picture = fleet.picture()
    everyone = hosts_.align(picture, fleet.hosts, usage_of(picture))
    assert filter_.mask(everyone, spec).tolist() == [False]
    assert filter_.shortfall(everyone, spec).reason == reason
