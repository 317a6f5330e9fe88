# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What placements leave is what the resource database has left once they are claimed."""

from __future__ import annotations

from fleets import PictureBuilder, partitioned

from accelsched.placement.partitioning import Budget, OneType
from accelsched.scheduler.room import Room, rooms


def test_what_servers_take_is_gone_and_what_is_in_use_was_never_there() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=2, vgpus=8, used=3)
    found = rooms(builder.picture(), [{"a": {"VCPU": 2}, "a_gpu_1": {"VGPU": 1}}, {"a": {"VCPU": 2}}])
    assert found["VGPU"] == Room(capacity=16, free_before=13, free_after=12)
    assert found["VCPU"] == Room(capacity=16, free_before=16, free_after=12)


def test_a_gpu_that_takes_one_type_is_closed_to_others() -> None:
    builder = PictureBuilder()
    builder.host("a")
    for name in ("gpu_0", "gpu_1"):
        inventories, partition = partitioned(OneType(frozenset({"CUSTOM_A", "CUSTOM_B"})), 4, {})
        builder.provider(name, inventories, builder.rows[0], partition=partition)
    found = rooms(builder.picture(), [{"gpu_0": {"CUSTOM_A": 1}}])
    assert found["CUSTOM_A"] == Room(8, 8, 7)
    assert found["CUSTOM_B"] == Room(8, 8, 4)


def test_a_budget_is_spent_by_all_classes() -> None:
    builder = PictureBuilder()
    builder.host("a")
    inventories, partition = partitioned(Budget(24, {"CUSTOM_A": 4, "CUSTOM_B": 8}), 6, {"CUSTOM_B": 1})
    builder.provider("gpu", inventories, builder.rows[0], partition=partition)
    found = rooms(builder.picture(), [{"gpu": {"CUSTOM_A": 1}}, {"gpu": {"CUSTOM_A": 1}}])
    assert found["CUSTOM_A"] == Room(6, 4, 2)
    assert found["CUSTOM_B"] == Room(6, 2, 1)
