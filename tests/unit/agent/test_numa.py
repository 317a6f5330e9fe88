# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What simulated hosts tell of their NUMA nodes, and which CPUs an operator may choose."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched import conf as options
from accelsched import cpu_sets, errors
from accelsched.agent.devices.simulated import SimulatedDeviceDriver
from accelsched.agent.host import Host
from accelsched.agent.virt.simulated import SimulatedDriver
from accelsched.conf import agent, compute


def test_a_simulated_host_has_the_nodes_it_is_told_to_have(context: Any) -> None:
    for name, value in {
        "vcpus": 8,
        "numa_nodes": 2,
        "threads_per_core": 2,
        "memory_mb": 4096,
        "huge_pages": 16,
    }.items():
        context.conf.set_override(f"simulated_{name}", value, group="agent")
    context.conf.set_override("simulated_gpus", ["1", "1"], group="devices")
    context.conf.set_override("cpu_dedicated_set", "2-7", group="compute")
    context.conf.set_override("cpu_shared_set", "0,1", group="compute")
    report = Host(context, SimulatedDriver(context), {"simulated": SimulatedDeviceDriver(context)}).report("queue")
    assert report["numa"]["nodes"][0] == {
        **{"node": 0, "socket": 0, "shared_cpus": [0, 1], "dedicated_cpus": [2, 3], "cores": [[0, 1], [2, 3]]},
        **{"memory_mb": 2048, "pages": {"4": 2016 * 256, "2048": 16}},
    }
    root, *devices = report["providers"]
    assert {name: root["inventories"][name]["total"] for name in ("VCPU", "PCPU")} == {"VCPU": 2, "PCPU": 6}
    assert "HW_CPU_HYPERTHREADING" in root["traits"]
    assert ["CUSTOM_NUMA_NODE_0" in device["traits"] for device in devices] == [True, True, False]


def test_a_host_that_is_told_nothing_tells_nothing(context: Any) -> None:
    report = Host(context, SimulatedDriver(context), {}).report("queue")
    assert "numa" not in report
    assert "PCPU" not in report["providers"][0]["inventories"]


@pytest.mark.parametrize(
    ("dedicated", "shared", "message"),
    [
        ("0-3", "3,4", "CPUs 3 are in cpu_dedicated_set too"),
        ("x", None, "neither a CPU"),
        ("3-1", None, "no range of CPU numbers"),
        ("", None, "names no CPU"),
        ("9999", None, "no range"),
    ],
)
def test_sets_of_cpus_that_make_no_sense_are_refused(dedicated: str, shared: str | None, message: str) -> None:
    conf = options.new()
    options.parse(conf, [], "test")
    conf.set_override("cpu_dedicated_set", dedicated, group="compute")
    conf.set_override("cpu_shared_set", shared, group="compute")
    with pytest.raises(errors.ConfigurationError, match=message):
        compute.check(conf)


def test_cpus_that_the_host_does_not_have_are_refused(context: Any) -> None:
    context.conf.set_override("cpu_dedicated_set", "70-71", group="compute")
    with pytest.raises(errors.ConfigurationError, match="CPUs 70-71 are not among this host's, 0-63"):
        SimulatedDriver(context)


@pytest.mark.parametrize(
    ("dedicated", "shared", "expected"),
    [(None, None, "0-7"), ("1", None, ""), ("1", "2", "2"), (None, "0-7,^3", "0-2,4-7")],
)
def test_which_cpus_are_shared(dedicated: str | None, shared: str | None, expected: str) -> None:
    conf = options.new()
    options.parse(conf, [], "test")
    conf.set_override("cpu_dedicated_set", dedicated, group="compute")
    conf.set_override("cpu_shared_set", shared, group="compute")
    assert cpu_sets.format(compute.shared(conf, frozenset(range(8)))) == expected


@pytest.mark.parametrize("told", [{"numa_nodes": 3}, {"numa_nodes": 2, "huge_pages": 10**6}])
def test_nodes_that_do_not_divide_are_refused(told: dict[str, int]) -> None:
    conf = options.new()
    options.parse(conf, [], "test")
    for name, value in told.items():
        conf.set_override(f"simulated_{name}", value, group="agent")
    with pytest.raises(errors.ConfigurationError, match="simulated_"):
        agent.check(conf)
