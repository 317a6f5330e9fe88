# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What Nova's documentation says of flavors and images: https://docs.openstack.org/nova/latest/configuration/extra-specs.html"""

from __future__ import annotations

import pytest

from accelsched import errors, wire
from accelsched.scheduler import request as requests
from accelsched.scheduler.numa.request import ANY, LARGE, SMALL, GuestNode, affinity, parse


def flavor(specs: dict[str, str], vcpus: int = 4, ram_mb: int = 4096) -> wire.FlavorSpec:
    return {"name": "f", "vcpus": vcpus, "ram_mb": ram_mb, "disk_gb": 1, "extra_specs": specs}


def image(properties: dict[str, str]) -> wire.ImageSpec:
    return {
        **dict.fromkeys(("id", "name"), "i"),
        "disk_format": "raw",
        **dict.fromkeys(("size", "min_disk_gb", "min_ram_mb"), 0),
        **dict.fromkeys(("os_hash_algo", "os_hash_value")),
        "properties": properties,
    }  # type: ignore[return-value,typeddict-item]


def test_nothing_asked_is_nothing_at_all() -> None:
    assert parse(flavor({}), {}) is None
    assert parse(flavor({"hw:cpu_policy": "shared"}), {}) is None


def test_nodes_divide_cpus_and_memory_evenly() -> None:
    numa = parse(flavor({"hw:numa_nodes": "2"}), {})
    assert numa is not None
    assert numa.nodes == (GuestNode((0, 1), (), 2048), GuestNode((2, 3), (), 2048))
    assert not numa.pins


def test_dedicated_cpus_are_one_node_unless_more_are_asked_for() -> None:
    numa = parse(flavor({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}), {})
    assert numa is not None
    assert numa.nodes == (GuestNode((), (0, 1, 2, 3), 4096),)
    assert numa.threads == "require"


def test_nodes_may_be_spelt_out() -> None:
    specs = {
        "hw:numa_nodes": "2",
        **{"hw:numa_cpus.0": "0", "hw:numa_cpus.1": "1-3", "hw:numa_mem.0": "1024", "hw:numa_mem.1": "3072"},
        **{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "^0-1"},
    }
    numa = parse(flavor(specs), {})
    assert numa is not None
    assert numa.nodes == (GuestNode((0,), (), 1024), GuestNode((1,), (2, 3), 3072))


@pytest.mark.parametrize(
    ("text", "kb"),
    [("small", SMALL), ("large", LARGE), ("any", ANY), ("2048", 2048), ("2MB", 2048), ("1GB", 1048576)],
)
def test_page_sizes(text: str, kb: int) -> None:
    numa = parse(flavor({"hw:mem_page_size": text}), {})
    assert numa is not None
    assert (numa.page_size, len(numa.nodes)) == (kb, 1)


@pytest.mark.parametrize(
    ("specs", "properties", "policy"),
    [
        ({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "shared"}, "dedicated"),
        ({}, {"hw_cpu_policy": "dedicated"}, "dedicated"),
        ({"resources:PCPU": "4"}, {}, "dedicated"),
    ],
)
def test_image_and_resources_may_say_the_policy(specs: dict[str, str], properties: dict[str, str], policy: str) -> None:
    numa = parse(flavor(specs), properties)
    assert numa is not None
    assert numa.policy == policy


@pytest.mark.parametrize(
    ("specs", "properties", "message"),
    [
        ({"hw:numa_nodes": "0"}, {}, "from 1 to 64"),
        ({"hw:numa_nodes": "two"}, {}, "whole number"),
        ({"hw:numa_nodes": "3"}, {}, "divided evenly by 3"),
        ({"hw:numa_nodes": "2"}, {"hw_numa_nodes": "2"}, "the image may not"),
        ({"hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "4096"}, {}, "need hw:numa_nodes"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3"}, {}, "each node needs both"),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "4096"}, {}, "given for 1 of 2"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.1": "0-3", "hw:numa_mem.1": "4096"}, {}, "without a gap"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-4", "hw:numa_mem.0": "4096"}, {}, "CPU 4 is not one of 4"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "4096"}, {}, "CPUs 3 are on no node"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "1"}, {}, "1 MiB in all"),
        (
            {
                **{"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-2", "hw:numa_mem.0": "2048"},
                **{"hw:numa_cpus.1": "2-3", "hw:numa_mem.1": "2048"},
            },
            {},
            "on two nodes",
        ),
        (
            {"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "4096"},
            {"hw_numa_cpus.0": "0-3"},
            "the image may not",
        ),
        ({"hw:cpu_policy": "own"}, {}, "none of shared, dedicated, mixed"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "rules out"),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"}, {"hw_cpu_policy": "dedicated"}, "rules out"),
        ({"hw:cpu_policy": "mixed"}, {}, "needs hw:cpu_dedicated_mask"),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_dedicated_mask": "0"}, {}, "only goes with hw:cpu_policy=mixed"),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0-3"}, {}, "both dedicated and shared"),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "7"}, {}, "CPU 7 is not one of 4"),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "x"}, {}, "neither a CPU"),
        ({"hw:cpu_thread_policy": "require"}, {}, "only goes with"),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "some"}, {}, "none of prefer"),
        (
            {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"},
            {"hw_cpu_thread_policy": "isolate"},
            "must agree",
        ),
        ({"hw:mem_page_size": "huge"}, {}, "neither small"),
        ({}, {"hw_mem_page_size": "large"}, "the flavor must say"),
        ({"hw:mem_page_size": "2048"}, {"hw_mem_page_size": "large"}, "may not say it too"),
        ({"hw:cpu_policy": "dedicated", "resources:PCPU": "4"}, {}, "one or the other"),
        ({"resources:PCPU": "3"}, {}, "the flavor has 4"),
        ({"resources:PCPU": "4", "resources:VCPU": "1"}, {}, "one or the other"),
        (
            {
                **{"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"},
                "trait:HW_CPU_HYPERTHREADING": "required",
            },
            {},
            "one or the other",
        ),
        ({"hw:cpu_realtime": "yes"}, {}, "not supported"),
        ({"hw:emulator_threads_policy": "isolate"}, {}, "emulator threads"),
        ({"hw:pci_numa_affinity_policy": "near"}, {}, "none of legacy"),
        ({"hw:pci_numa_affinity_policy": "required"}, {"hw_pci_numa_affinity_policy": "legacy"}, "must agree"),
    ],
)
def test_what_makes_no_sense_is_refused(specs: dict[str, str], properties: dict[str, str], message: str) -> None:
    with pytest.raises(errors.InvalidError, match=message):
        requests.build(flavor(specs), image(properties), project_id="p")


@pytest.mark.parametrize(
    ("specs", "amounts", "required", "forbidden"),
    [
        ({}, {"VCPU": 4}, set(), set()),
        ({"hw:numa_nodes": "2"}, {"VCPU": 4}, set(), set()),
        ({"hw:cpu_policy": "dedicated"}, {"PCPU": 4}, set(), set()),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"}, {"VCPU": 3, "PCPU": 1}, set(), set()),
        ({"resources:PCPU": "4"}, {"PCPU": 4}, set(), set()),
        (
            {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"},
            {"PCPU": 4},
            {"HW_CPU_HYPERTHREADING"},
            set(),
        ),
        (
            {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"},
            {"PCPU": 4},
            set(),
            {"HW_CPU_HYPERTHREADING"},
        ),
    ],
)
def test_dedicated_cpus_are_a_class_of_their_own(
    specs: dict[str, str], amounts: dict[str, int], required: set[str], forbidden: set[str]
) -> None:
    query = requests.build(flavor(specs), None, project_id="p").query()
    asked = {name: amount for name, amount in query.groups[0].resources.items() if name.endswith("CPU")}
    assert asked == amounts
    assert (query.root_required, query.root_forbidden) == (required, forbidden)


def test_how_near_devices_must_be() -> None:
    assert affinity(flavor({}), {}) is None
    assert affinity(flavor({"hw:pci_numa_affinity_policy": "required"}), {}) == "required"
    assert affinity(flavor({}), {"hw_pci_numa_affinity_policy": "socket"}) == "socket"
