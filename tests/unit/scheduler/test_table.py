# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
from fleets import PictureBuilder
from plugins_alone import aggregate

from accelsched.placement.picture import Picture, ProviderTable
from accelsched.scheduler.layout import Layout
from accelsched.scheduler.table import merged


def test_a_layout_follows_the_picture_as_providers_come_and_go() -> None:
    builder = PictureBuilder()
    for name in "abc":
        builder.host(name)
    table, picture = builder.facts().table, builder.picture()

    def found() -> list[tuple[int, str]]:
        layout = table.layout(picture)
        return [(at, picture.uuid[slot]) for at, slot in zip(layout.at.tolist(), layout.slots.tolist(), strict=True)]

    assert found() == [(0, "a"), (1, "b"), (2, "c")]
    row = builder.rows[1]
    picture.apply([row.id], ProviderTable.of([]))
    assert found() == [(0, "a"), (2, "c")]
    builder.provider("d", {})
    picture.apply([builder.rows[-1].id], ProviderTable.of([builder.rows[-1]]))
    assert found() == [(0, "a"), (2, "c")]
    picture.apply([row.id], ProviderTable.of([row]))
    assert found() == [(0, "a"), (1, "b"), (2, "c")]
    assert len(table.layout(Picture()).at) == 0


def test_a_layout_is_kept_while_nothing_but_usage_changes() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1)
    table, picture = builder.facts().table, builder.picture()
    first = table.layout(picture)
    gpu = builder.rows[1]

    def applied(**fields: object) -> Layout:
        inventory = dataclasses.replace(gpu.inventories["VGPU"], **fields)
        row = dataclasses.replace(gpu, inventories={"VGPU": inventory}, generation=9, updated_us=9)
        picture.apply([gpu.id], ProviderTable.of([row]))
        return table.layout(picture)

    assert applied(used=5, ceiling=7) is first
    assert applied(total=9) is not first
    second = table.layout(picture)
    picture.apply([gpu.id], ProviderTable.of([dataclasses.replace(gpu, traits=frozenset({"CUSTOM_OTHER"}))]))
    assert table.layout(picture) is not second


def test_metadata_of_several_aggregates_is_merged_and_split_at_commas() -> None:
    both = merged([aggregate("x", a="1, 2", b="z"), aggregate("y", a="3")])
    assert both == {"a": {"1", "2", "3"}, "b": {"z"}}


def test_hosts_in_the_same_aggregates_are_asked_once() -> None:
    one, two = aggregate("one", a="1"), aggregate("two", a="2")
    builder = PictureBuilder()
    for number in range(30):
        builder.host(f"h{number}", aggregates=((one,), (one, two), ())[number % 3])
    asked: list[object] = []

    def question(metadata: object) -> int:
        asked.append(metadata)
        return len(asked)

    table = builder.facts().table
    answers = table.by_aggregates.ask(question, np.int64, np.arange(30))
    assert answers.tolist() == [1, 2, 3] * 10
    assert len(asked) == 3
