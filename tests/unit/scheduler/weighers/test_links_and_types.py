# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices that links join stay together; devices that several types share keep their type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from fleets import PictureBuilder, inventory, partitioned
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import conf as options
from accelsched import names
from accelsched.placement.partitioning import OneType
from accelsched.scheduler import plugins, request
from accelsched.scheduler.pipeline import decide


def loaded() -> plugins.Plugins:
    conf = options.new()
    options.parse(conf, [], "test")
    return plugins.load(conf)


PLUGINS = loaded()
NESTED = [{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3}, {4, 5, 6, 7}]


def linked(
    builder: PictureBuilder, name: str, gpus: int, partitions: Sequence[set[int]], used: Sequence[int] = ()
) -> None:
    builder.host(name)
    root = builder.rows[-1]
    for number in range(gpus):
        traits = [names.link_partition_trait(n) for n, members in enumerate(partitions) if number in members]
        taken = {"PGPU": inventory(1, used=int(number in used))}
        builder.provider(f"{name}:{number}", taken, root, traits=traits)


def place(builder: PictureBuilder, gpus: int, count: int = 1) -> list[tuple[str, list[int]]]:
    """Return where servers with some GPUs each went."""
    groups = {f"resources{number}:PGPU": "1" for number in range(gpus)}
    flavor = {"name": "f", "vcpus": 1, "ram_mb": 64, "disk_gb": 1, "extra_specs": {**groups, "group_policy": "isolate"}}
    spec = request.build(flavor, None, project_id="p")  # type: ignore[arg-type]
    decision = decide(builder.picture(), builder.hosts, spec, count, PLUGINS, "s")
    return [
        (s.host.name, sorted(int(d["provider_name"].split(":")[1]) for d in s.devices if d["group"]))
        for s in decision.selections
    ]


@pytest.mark.parametrize(
    ("used", "gpus", "taken"),
    [
        ([0, 5], 2, None),
        ([0], 2, [1, 2, 3]),
        ([0], 4, [4, 5, 6, 7]),
        ([0, 4], 4, None),
        ([0, 1, 2], 1, [3]),
        ([4], 3, [5, 6, 7]),
    ],
)
def test_devices_come_from_the_smallest_partition_that_has_enough(
    used: list[int], gpus: int, taken: list[int] | None
) -> None:
    builder = PictureBuilder()
    linked(builder, "a", 8, NESTED, used)
    ((_, chosen),) = place(builder, gpus)
    assert len(chosen) == gpus
    if taken is not None:
        assert set(chosen) <= set(taken)
    elif gpus == 2:
        assert any(set(chosen) <= half for half in NESTED[1:])


def below_bridges(builder: PictureBuilder, name: str, bridges: Sequence[int], used: Sequence[int] = ()) -> None:
    """Add a host with a GPU below each of these bridges."""
    builder.host(name)
    root = builder.rows[-1]
    for number, bridge in enumerate(bridges):
        taken = {"PGPU": inventory(1, used=int(number in used))}
        builder.provider(f"{name}:{number}", taken, root, traits=[names.pcie_root_trait(f"0000:{bridge:02x}")])


def test_devices_without_links_come_from_below_one_bridge_if_they_can() -> None:
    builder = PictureBuilder()
    below_bridges(builder, "a", [0x40, 0xC0, 0x40, 0xC0], used=[2])
    assert place(builder, 2) == [("a", [1, 3])]
    builder = PictureBuilder()
    below_bridges(builder, "apart", [0x40, 0xC0])
    below_bridges(builder, "together", [0x10, 0x20, 0x20, 0x10])
    ((host, chosen),) = place(builder, 2)
    assert (host, chosen in ([0, 3], [1, 2])) == ("together", True)
    builder = PictureBuilder()
    below_bridges(builder, "a", [0x40, 0xC0, 0x40, 0xC0])
    assert len(place(builder, 3)[0][1]) == 3  # apart, where there is no other way
    assert len(place(builder, 1)[0][1]) == 1


def test_links_count_more_than_bridges() -> None:
    builder = PictureBuilder()
    builder.host("a")
    root = builder.rows[-1]
    for number in range(4):
        traits = [names.pcie_root_trait(f"0000:{0x40 if number < 2 else 0xC0:02x}")]
        traits += [names.link_partition_trait(0)] if number in (0, 2, 3) else []
        builder.provider(f"a:{number}", {"PGPU": inventory(1)}, root, traits=traits)
    ((_, chosen),) = place(builder, 2)
    assert set(chosen) <= {0, 2, 3}
    below_bridges(builder, "b", [0x40, 0x40, 0xC0, 0xC0])
    assert place(builder, 2)[0][0] == "a"


def test_a_host_with_a_partition_comes_before_one_whose_devices_would_be_apart() -> None:
    builder = PictureBuilder()
    linked(builder, "apart", 4, [{0, 1}, {2, 3}], used=[0, 2])
    linked(builder, "joined", 4, [{0, 1}, {2, 3}], used=[0])
    assert place(builder, 2) == [("joined", [2, 3])]


def test_single_devices_leave_partitions_whole() -> None:
    builder = PictureBuilder()
    linked(builder, "a", 6, [{0, 1}, {2, 3}], used=[])
    assert {chosen[0] for _, chosen in place(builder, 1, count=2)} == {4, 5}
    builder = PictureBuilder()
    linked(builder, "a", 4, [{0, 1}, {2, 3}], used=[2])
    assert place(builder, 1) == [("a", [3])]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_server_is_never_spread_over_partitions_on_a_host_that_has_one_for_it(data: st.DataObject) -> None:
    builder = PictureBuilder()
    fleet: dict[str, tuple[list[set[int]], set[int]]] = {}
    for name in ("a", "b")[: data.draw(st.integers(1, 2))]:
        gpus = data.draw(st.integers(1, 6))
        members = st.sets(st.integers(0, gpus - 1), min_size=min(2, gpus))
        partitions = data.draw(st.lists(members, max_size=3))
        used = data.draw(st.sets(st.integers(0, gpus - 1)))
        fleet[name] = (partitions, set(range(gpus)) - used)
        linked(builder, name, gpus, partitions, sorted(used))
    count = data.draw(st.integers(2, 4))
    placed = place(builder, count)
    assert bool(placed) == any(len(free) >= count for _, free in fleet.values())
    for host, chosen in placed:
        partitions, free = fleet[host]
        if any(len(members & free) >= count for members in partitions):
            assert any(set(chosen) <= members for members in partitions)


def shared(builder: PictureBuilder, *carried: Mapping[str, int]) -> None:
    """Add a host for each of some GPUs that take one type at a time."""
    for number, used in enumerate(carried):
        builder.host(f"h{number}")
        inventories, partition = partitioned(OneType(frozenset({"CUSTOM_A", "CUSTOM_B"})), 4, used)
        builder.provider(f"gpu_{number}", inventories, builder.rows[-1], partition=partition)


def test_a_type_goes_where_it_is_before_it_takes_a_gpu_from_another() -> None:
    builder = PictureBuilder()
    shared(builder, {}, {"CUSTOM_B": 1}, {"CUSTOM_A": 1}, {})
    flavor = {"name": "f", "vcpus": 1, "ram_mb": 64, "disk_gb": 1, "extra_specs": {"resources:CUSTOM_A": "1"}}
    spec = request.build(flavor, None, project_id="p")  # type: ignore[arg-type]
    decision = decide(builder.picture(), builder.hosts, spec, 4, PLUGINS, "s")
    gpus = [selection.devices[1]["provider_name"] for selection in decision.selections]
    assert gpus[:3] == ["gpu_2"] * 3
    assert gpus[3] in ("gpu_0", "gpu_3")
