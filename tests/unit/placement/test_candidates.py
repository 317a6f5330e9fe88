# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
from fleets import PictureBuilder, inventory, partitioned
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched.placement.candidates import CandidateQuery, RequestGroup, expand, find, narrow
from accelsched.placement.partitioning import Budget, Held, OneType, Position, Profile, Slices
from accelsched.placement.picture import Picture


def names(picture: Picture, query: CandidateQuery) -> list[dict[str, list[str]]]:
    return [
        {suffix: [picture.row(slot).name for slot in slots] for suffix, slots in candidate.mappings.items()}
        for candidate in find(picture, query)
    ]


def test_the_unsuffixed_group_may_be_spread_over_a_tree() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=2)
    found = names(builder.picture(), CandidateQuery((RequestGroup("", {"VCPU": 1, "VGPU": 1}),)))
    assert found == [{"": ["a", "a_gpu_0"]}, {"": ["a", "a_gpu_1"]}]


def test_a_suffixed_group_comes_from_one_provider() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=2, vgpus=4)
    picture = builder.picture()
    assert names(picture, CandidateQuery((RequestGroup("1", {"VCPU": 1, "VGPU": 1}),))) == []
    assert names(picture, CandidateQuery((RequestGroup("1", {"VGPU": 5}),))) == []


def test_isolated_groups_share_no_provider_and_are_combinations() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=8, vgpus=1)
    groups = tuple(RequestGroup(str(number), {"VGPU": 1}) for number in range(8))
    found = names(builder.picture(), CandidateQuery(groups, isolate=True))
    assert found == [{str(number): [f"a_gpu_{number}"] for number in range(8)}]


def test_groups_that_share_a_provider_must_fit_together() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1, vgpus=3)
    two = (RequestGroup("1", {"VGPU": 2}), RequestGroup("2", {"VGPU": 2}))
    assert names(builder.picture(), CandidateQuery(two)) == []


def test_required_traits_of_the_unsuffixed_group_are_met_together() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1)
    group = RequestGroup("", {"VCPU": 1, "VGPU": 1}, (frozenset({"COMPUTE_NODE"}), frozenset({"CUSTOM_VGPU_TYPE_A"})))
    assert len(names(builder.picture(), CandidateQuery((group,)))) == 1
    lonely = RequestGroup("", {"VCPU": 1}, (frozenset({"CUSTOM_VGPU_TYPE_A"}),))
    assert names(builder.picture(), CandidateQuery((lonely,))) == []


def test_membership_of_the_root_counts_for_its_devices_in_the_unsuffixed_group_only() -> None:
    """As Placement has it: a suffixed group looks at the one provider it takes."""
    builder = PictureBuilder()
    for name, aggregates in (("a", ["rack"]), ("b", [])):
        root = builder.provider(name, {"VCPU": inventory(4)}, aggregates=aggregates)
        builder.provider(f"{name}_gpu", {"VGPU": inventory(4)}, root)
    picture = builder.picture()

    def asked(suffix: str, **where: object) -> list[dict[str, list[str]]]:
        return names(picture, CandidateQuery((RequestGroup(suffix, {"VGPU": 1}, **where),)))  # type: ignore[arg-type]

    rack = frozenset({"rack"})
    assert asked("", member_of=(rack,)) == [{"": ["a_gpu"]}]
    assert asked("", forbidden_aggregates=rack) == [{"": ["b_gpu"]}]
    assert asked("1", member_of=(rack,)) == []
    assert asked("1", forbidden_aggregates=rack) == [{"1": ["a_gpu"]}, {"1": ["b_gpu"]}]


def test_of_several_memberships_one_provider_has_to_have_all() -> None:
    """The root's or its own, but not one of each: as Placement has it."""
    builder = PictureBuilder()
    root = builder.provider("a", {}, aggregates=["rack"])
    builder.provider("a_gpu", {"VGPU": inventory(4)}, root, aggregates=["room"])
    group = RequestGroup("", {"VGPU": 1}, member_of=(frozenset({"rack"}), frozenset({"room"})))
    assert names(builder.picture(), CandidateQuery((group,))) == []


def _with_shares() -> Picture:
    builder = PictureBuilder()
    for name, rack in (("a", "rack1"), ("b", "rack2")):
        root = builder.provider(name, {"VCPU": inventory(4)})
        # What shares reaches a whole tree by any of its providers.
        builder.provider(f"{name}_gpu", {"VGPU": inventory(4)}, root, aggregates=[rack])
    builder.provider("c", {"VCPU": inventory(4), "DISK_GB": inventory(100)})
    shares = ["MISC_SHARES_VIA_AGGREGATE", "CUSTOM_NFS"]
    builder.provider("nfs", {"DISK_GB": inventory(100)}, traits=shares, aggregates=["rack1", "rack2"])
    builder.provider("lonely", {"DISK_GB": inventory(100)}, traits=shares)
    return builder.picture()


def test_a_provider_that_shares_serves_the_trees_of_its_aggregates() -> None:
    picture = _with_shares()
    spread = RequestGroup("", {"VCPU": 1, "DISK_GB": 10})
    assert names(picture, CandidateQuery((spread,))) == [{"": ["a", "nfs"]}, {"": ["b", "nfs"]}, {"": ["c"]}]
    groups = (RequestGroup("", {"VCPU": 1}), RequestGroup("_D", {"DISK_GB": 10}))
    apart = [{"": ["a"], "_D": ["nfs"]}, {"": ["b"], "_D": ["nfs"]}, {"": ["c"], "_D": ["c"]}]
    assert names(picture, CandidateQuery(groups)) == apart


def test_what_only_shares_is_one_candidate_however_many_trees_it_reaches() -> None:
    group = RequestGroup("", {"DISK_GB": 10})
    assert names(_with_shares(), CandidateQuery((group,))) == [{"": ["nfs"]}, {"": ["c"]}, {"": ["lonely"]}]


def test_traits_of_what_shares_count_for_the_unsuffixed_group() -> None:
    picture = _with_shares()
    wanted = RequestGroup("", {"VCPU": 1, "DISK_GB": 10}, required=(frozenset({"CUSTOM_NFS"}),))
    assert names(picture, CandidateQuery((wanted,))) == [{"": ["a", "nfs"]}, {"": ["b", "nfs"]}]
    unwanted = RequestGroup("", {"VCPU": 1, "DISK_GB": 10}, forbidden=frozenset({"CUSTOM_NFS"}))
    assert names(picture, CandidateQuery((unwanted,))) == [{"": ["c"]}]


def test_nothing_is_shared_with_a_request_for_one_tree() -> None:
    picture = _with_shares()
    assert names(picture, CandidateQuery((RequestGroup("", {"VCPU": 1, "DISK_GB": 10}, in_tree="a"),))) == []
    groups = (RequestGroup("", {"VCPU": 1}, in_tree="a"), RequestGroup("_D", {"DISK_GB": 10}))
    assert names(picture, CandidateQuery(groups)) == [{"": ["a"], "_D": ["nfs"]}]


def test_same_subtree_wants_one_of_the_groups_above_the_others() -> None:
    builder = PictureBuilder()
    root = builder.provider("a", {})
    for node in ("numa0", "numa1"):
        numa = builder.provider(node, {"MEMORY_MB": inventory(100)}, root, traits=["HW_NUMA_ROOT"])
        builder.provider(f"{node}_gpu", {"VGPU": inventory(1)}, numa)
    groups = (RequestGroup("_M", {"MEMORY_MB": 10}), RequestGroup("_G", {"VGPU": 1}))
    together = CandidateQuery(groups, same_subtree=(frozenset({"_M", "_G"}),))
    assert names(builder.picture(), together) == [
        {"_M": ["numa0"], "_G": ["numa0_gpu"]},
        {"_M": ["numa1"], "_G": ["numa1_gpu"]},
    ]


def test_narrowing_says_what_was_short_and_by_how_much() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1, vgpus=2, cpus=4)
    builder.host("b", gpus=1, vgpus=8, cpus=2)
    picture = builder.picture()
    stages = narrow(picture, CandidateQuery((RequestGroup("", {"VCPU": 3}), RequestGroup("1", {"VGPU": 4})))).stages
    cpu, gpu = stages[0], stages[1]
    assert (cpu.what, cpu.left, cpu.removed) == ("VCPU", 1, 1)
    # Of the hosts still in, "a" is closest; what "b" has no longer matters.
    assert (gpu.what, gpu.left, gpu.removed, gpu.asked, gpu.most_free) == ("VGPU of group 1", 0, 1, 4, 2)
    assert picture.row(gpu.most_free_on or 0).name == "a_gpu_0"


@given(
    gpus=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    asked=st.lists(
        st.dictionaries(st.sampled_from(["VCPU", "VGPU"]), st.integers(1, 2), min_size=1), min_size=1, max_size=2
    ),
    usage=st.booleans(),
)
def test_many_trees_at_once_give_what_one_after_the_other_gives(
    gpus: list[int], asked: list[dict[str, int]], usage: bool
) -> None:
    builder = PictureBuilder()
    for number, count in enumerate(gpus):
        builder.host(f"h{number}", gpus=count, vgpus=2, cpus=2, used=1)
    picture = builder.picture()
    query = CandidateQuery(tuple(RequestGroup(str(i) if i else "", part) for i, part in enumerate(asked)))
    narrowed = narrow(picture, query)
    assumed = {name: columns.used[: columns.size] for name, columns in picture.classes.items()} if usage else None
    one_by_one = [
        candidate
        for root in np.flatnonzero(narrowed.trees).tolist()
        for candidate in expand(picture, narrowed, root, usage=assumed)
    ]
    assert find(picture, query) == one_by_one


@settings(max_examples=60, deadline=None)
@given(
    hosts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=4),
    asked=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    isolate=st.booleans(),
)
def test_candidates_are_what_trying_everything_finds(hosts: list[list[int]], asked: list[int], isolate: bool) -> None:
    builder = PictureBuilder()
    for number, gpus in enumerate(hosts):
        root = builder.provider(f"h{number}", {"VCPU": inventory(1)})
        for gpu, free in enumerate(gpus):
            builder.provider(f"h{number}g{gpu}", {"VGPU": inventory(3, used=3 - free)}, root)
    query = CandidateQuery(
        tuple(RequestGroup(str(i), {"VGPU": amount}) for i, amount in enumerate(asked)), isolate=isolate
    )
    found = {
        tuple(sorted((asked[int(suffix)], providers[0]) for suffix, providers in mapping.items()))
        for mapping in names(builder.picture(), query)
    }
    expected = set()
    for number, gpus in enumerate(hosts):
        for choice in itertools.product(range(len(gpus)), repeat=len(asked)):
            if isolate and len(set(choice)) < len(choice):
                continue
            if all(sum(a for a, c in zip(asked, choice, strict=True) if c == g) <= free for g, free in enumerate(gpus)):
                expected.add(tuple(sorted((a, f"h{number}g{c}") for a, c in zip(asked, choice, strict=True))))
    assert found == expected


ONE_TYPE = OneType(frozenset("AB"))
BUDGET = Budget(24, {"A": 4, "B": 8})
SLICES = Slices(8, 7, {"A": Profile(1, 1, (0, 1, 2, 3, 4, 5, 6)), "B": Profile(4, 3, (0, 4))})


def test_a_class_that_the_rule_does_not_let_in_just_now_is_no_candidate() -> None:
    builder = PictureBuilder()
    for name, used in (("a", {"A": 1}), ("b", {"B": 1}), ("empty", {})):
        inventories, partition = partitioned(ONE_TYPE, 7, used)
        builder.provider(name, inventories, partition=partition)
    assert names(builder.picture(), CandidateQuery((RequestGroup("", {"A": 1}),))) == [{"": ["a"]}, {"": ["empty"]}]


def test_free_memory_in_the_wrong_place_is_no_candidate() -> None:
    builder = PictureBuilder()
    for name, starts in (("scattered", (1, 5)), ("packed", (5, 6))):
        inventories, partition = partitioned(SLICES, 7, {"A": 2}, [Position("A", start) for start in starts])
        builder.provider(name, inventories, partition=partition)
    assert names(builder.picture(), CandidateQuery((RequestGroup("1", {"B": 1}),))) == [{"1": ["packed"]}]


@given(
    st.sampled_from([ONE_TYPE, BUDGET, SLICES]),
    st.lists(st.dictionaries(st.sampled_from("AB"), st.integers(1, 3), min_size=1), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from("AB"), st.integers(0, 2)),
    st.booleans(),
)
def test_groups_on_one_provider_keep_its_rule_together(
    rule: OneType | Budget | Slices, wanted: list[dict[str, int]], used: dict[str, int], unsuffixed: bool
) -> None:
    """There is a candidate just when a claim of all groups together would be let in."""
    positions = (rule.place(Held(used)) or ()) if isinstance(rule, Slices) else ()
    if not rule.allows(Held(used, frozenset(positions))):
        return
    builder = PictureBuilder()
    inventories, partition = partitioned(rule, 7, used, positions)
    builder.provider("gpu", inventories, partition=partition)
    groups = [RequestGroup(str(number), amounts) for number, amounts in enumerate(wanted)]
    if unsuffixed:
        groups[0] = RequestGroup("", wanted[0])
    held = Held(used, frozenset(positions))
    for amounts in wanted:
        held = held.plus(amounts)
    fits = rule.allows(held) and all(amount <= 7 for amount in held.amounts.values())
    # An inventory's max_unit holds for all groups together, and is 7 as well.
    assert bool(find(builder.picture(), CandidateQuery(tuple(groups)))) == fits


def test_a_group_that_asks_for_nothing_is_served_by_nobody() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1)
    together = (frozenset({"1", "2"}),)

    def found(**asked: object) -> int:
        nothing = RequestGroup("2", **asked)  # type: ignore[arg-type]
        query = CandidateQuery((RequestGroup("1", {"VCPU": 1}), nothing), same_subtree=together)
        return len(names(builder.picture(), query))

    assert found() == 0
    assert found(in_tree="a") == 0
    assert found(forbidden=frozenset({"CUSTOM_X"})) == 0
    assert found(required=(frozenset({"COMPUTE_NODE"}),)) == 1
