# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a request that found no host would have had to do without: enough, and never more than needed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from fleets import PictureBuilder, inventory
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import conf as options
from accelsched import errors
from accelsched.scheduler import plugins, request
from accelsched.scheduler.facts import Group
from accelsched.scheduler.pipeline import decide
from accelsched.scheduler.relaxation import requirements
from accelsched.scheduler.relaxation.requirements import Requirement, Trial
from accelsched.scheduler.relaxation.search import Relaxed, search
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.table import Aggregate


def loaded() -> plugins.Plugins:
    conf = options.new()
    options.parse(conf, [], "test")
    return plugins.load(conf)


PLUGINS = loaded()


def spec(ram_mb: int = 1024, image: Any = None, *, asked: dict[str, Any] | None = None, **specs: str) -> RequestSpec:
    extra = {key.replace("__", ":"): value for key, value in specs.items()}
    flavor = {"name": "f", "vcpus": 1, "ram_mb": ram_mb, "disk_gb": 1, "extra_specs": extra}
    return request.build(flavor, image, project_id="p", **(asked or {}))  # type: ignore[arg-type]


def relax(builder: PictureBuilder, wanted: RequestSpec, tries: int = 100_000, **about: Any) -> Relaxed:
    return search(builder.picture(), builder.facts(**about), wanted, PLUGINS, tries)


def fits(builder: PictureBuilder, wanted: RequestSpec) -> bool:
    return bool(decide(builder.picture(), builder.hosts, wanted, 1, PLUGINS, "s").selections)


def test_an_amount_comes_down_to_the_most_that_is_free() -> None:
    builder = PictureBuilder()
    builder.host("a")
    builder.host("b", gpus=1)
    assert str(relax(builder, spec(70000))) == "Would fit if: MEMORY_MB 70000 -> 65536."
    # The host that has most memory has no GPU, so it is of no use.
    builder.table.clear(), builder.rows.clear(), builder.silent_s.clear()
    builder.host("a")
    root = builder.provider("b", {"VCPU": inventory(4), "MEMORY_MB": inventory(4096), "DISK_GB": inventory(9)})
    builder.provider("b_gpu", {"VGPU": inventory(2)}, root)
    builder.silent_s.append(0.0)
    builder.table.append(builder.table[0].__class__("b", "b", "agent", True, False, False))
    told = str(relax(builder, spec(8192, resources__VGPU="1")))
    assert told == "Would fit if: MEMORY_MB 8192 -> 4096; or VGPU 1 -> 0."


def test_of_groups_that_are_alike_fewer_may_be_enough() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=4, vgpus=1)
    eight = {f"resources{number}__VGPU": "1" for number in range(8)}
    relaxed = relax(builder, spec(**eight, group_policy="isolate"))
    assert str(relaxed).startswith("Would fit if: ")
    assert "groups like 0 8 -> 4" in str(relaxed)


def test_traits_filters_zones_and_hints_are_told_apart() -> None:
    zone = Aggregate("agg", "az1", {"availability_zone": "az1"})
    builder = PictureBuilder()
    builder.host("a", gpus=1, aggregates=(zone,))
    builder.host("b", gpus=1, disabled=True)
    gpu = {"resources1__VGPU": "1"}
    assert "without trait CUSTOM_X of group 1" in str(relax(builder, spec(**gpu, trait1__CUSTOM_X="required")))
    forbidden = relax(builder, spec(**gpu, trait1__CUSTOM_VGPU_TYPE_A="forbidden"))
    assert "without forbidden trait CUSTOM_VGPU_TYPE_A of group 1" in str(forbidden)
    image = {"id": "i", "name": "i", "properties": {"trait:CUSTOM_Y": "required"}}
    assert str(relax(builder, spec(image=image))) == "Would fit if: without trait CUSTOM_Y."
    assert (
        str(relax(builder, spec(asked={"host": "c"})))
        == "Would fit if: without host c; or without filter ForcedHostFilter."
    )
    elsewhere = str(relax(builder, spec(asked={"availability_zone": "az2"})))
    assert elsewhere.startswith("Would fit if: without availability zone az2")
    on_b = {"hints": {"same_host": "s"}}
    told = relax(builder, spec(asked=on_b), located={"s": "b"})
    assert "without hint same_host" in str(told)


def test_a_group_that_is_full_is_named() -> None:
    builder = PictureBuilder()
    builder.host("a")
    facts = builder.facts()
    group = Group("anti-affinity", 1, facts.table.tally({"a": 1}))
    told = relax(builder, spec(asked={"hints": {"group": "g"}}), group=group)
    assert str(told).startswith("Would fit if: without hint group")


def test_a_host_that_is_out_of_service_needs_its_filter_given_up() -> None:
    builder = PictureBuilder()
    builder.host("a", silent_s=100.0)
    assert str(relax(builder, spec())) == "Would fit if: without filter ComputeFilter."


def test_a_search_that_is_cut_says_so() -> None:
    builder = PictureBuilder()
    builder.host("a")
    wanted = spec(70000, resources__VGPU="1", trait__CUSTOM_X="required")
    assert relax(builder, wanted, tries=3) == Relaxed((), complete=False, tries=3)
    assert relax(builder, wanted).complete


amounts = st.sampled_from([0, 1, 2, 3])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sets_told_are_enough_and_no_smaller_one_is(data: st.DataObject) -> None:
    builder = PictureBuilder()
    for number in range(data.draw(st.integers(1, 3))):
        traits = data.draw(st.sets(st.sampled_from(["CUSTOM_X", "CUSTOM_Y"])))
        silent = data.draw(st.sampled_from([0.0, 0.0, 0.0, 100.0]))
        gpus, used = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 2))
        cpus = data.draw(st.sampled_from([1, 4]))
        builder.host(f"h{number}", gpus=gpus, vgpus=2, used=used, cpus=cpus, traits=tuple(traits), silent_s=silent)
    specs: dict[str, str] = {}
    for suffix in data.draw(st.sampled_from([("",), ("1",), ("1", "2"), ("1", "2", "3")])):
        specs[f"resources{suffix}:VGPU"] = str(data.draw(amounts))
    specs |= {
        f"trait:{trait}": data.draw(st.sampled_from(["required", "forbidden"]))
        for trait in data.draw(st.sets(st.sampled_from(["CUSTOM_X", "CUSTOM_Y"])))
    }
    if data.draw(st.booleans()):
        specs["group_policy"] = data.draw(st.sampled_from(["none", "isolate"]))
    if data.draw(st.booleans()):
        specs["trait1:CUSTOM_VGPU_TYPE_B"] = "required"
    asked = {"host": data.draw(st.sampled_from([None, "h0", "h9"]))}
    flavor = {"name": "f", "vcpus": data.draw(st.sampled_from([1, 3, 8])), "ram_mb": 64, "disk_gb": 1}
    wanted = request.build({**flavor, "extra_specs": specs}, None, project_id="p", **asked)  # type: ignore[typeddict-item,arg-type]
    if fits(builder, wanted):
        return
    told = relax(builder, wanted)
    assert told.complete

    trial = Trial(wanted, builder.hosts, plugins.Plugins(PLUGINS.prefilters, PLUGINS.filters, ()))
    every = requirements.of(trial)
    by_name = {one.what: one for one in every}
    picture = builder.picture()

    def fits_without(some: list[tuple[Requirement, int]]) -> bool:
        left = trial
        for one, enough in some:
            left = one.without(left, enough)
        try:
            return bool(decide(picture, left.facts, left.request, 1, left.plugins, "s").selections)
        except errors.InvalidError:
            return False

    assert len(by_name) == len(every)
    smallest = len(told.sets[0]) if told.sets else 4
    for size in range(1, smallest):
        for chosen in itertools.combinations(every, size):
            assert not fits_without([(one, one.least) for one in chosen]), [one.what for one in chosen]
    for relaxed in told.sets:
        enough = [(by_name[one.what], one.enough or 0) for one in relaxed]
        assert fits_without(enough)
        for index, (one, amount) in enumerate(enough):
            if one.asked is not None and amount + 1 < one.asked:
                assert not fits_without([*enough[:index], (one, amount + 1), *enough[index + 1 :]])


@pytest.mark.parametrize("policy", ["none", "isolate"])
def test_what_would_be_enough_is_found_by_making_the_request_again(policy: str) -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=2, vgpus=4, used=3)
    assert not fits(builder, spec(resources1__VGPU="5", resources2__VGPU="5", group_policy=policy))
    told = relax(builder, spec(resources1__VGPU="5", resources2__VGPU="5", group_policy=policy))
    (first,) = told.sets[0]
    assert fits(
        builder, spec(resources1__VGPU=str(first.enough), resources2__VGPU=str(first.enough), group_policy=policy)
    )
    assert first.enough == (1 if policy == "isolate" else 2)
