# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import orjson
import pytest
from fleets import PictureBuilder

from accelsched.api.placement import fragments
from accelsched.api.placement.fragments import Fragments
from accelsched.placement.picture import Picture, ProviderTable


def _builder() -> PictureBuilder:
    builder = PictureBuilder()
    builder.host("a", gpus=2)
    return builder


def test_a_provider_is_rendered_again_only_after_it_changed() -> None:
    builder = _builder()
    picture = builder.picture()
    rendered: list[int] = []

    def render(picture: Picture, slot: int) -> object:
        rendered.append(slot)
        return {"name": picture.name[slot]}

    made = Fragments(render)
    for _ in range(2):
        assert orjson.loads(orjson.dumps(made.of(picture, [1, 0]))) == [{"name": "a_gpu_0"}, {"name": "a"}]
    assert sorted(rendered) == [0, 1]

    picture.apply([2], ProviderTable.of([dataclasses.replace(builder.rows[1], name="new")]))
    assert orjson.loads(orjson.dumps(made.of(picture, [1, 0]))) == [{"name": "new"}, {"name": "a"}]
    assert sorted(rendered) == [0, 1, 1]


def test_another_picture_is_rendered_anew() -> None:
    made = Fragments(lambda picture, slot: picture.name[slot])
    assert orjson.dumps(made.of(_builder().picture(), [0])) == b'["a"]'
    other = PictureBuilder()
    other.host("b")
    assert orjson.dumps(made.of(other.picture(), [0])) == b'["b"]'


def test_a_fleet_larger_than_what_is_kept_is_rendered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "_MOST", 1)
    made = Fragments(lambda picture, slot: picture.name[slot])
    assert orjson.dumps(made.of(_builder().picture(), [2, 0, 1])) == b'["a_gpu_1","a","a_gpu_0"]'
