# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsched import errors
from accelsched.placement import partitioning
from accelsched.placement.partitioning import NO_LIMIT, Budget, Held, OneType, Position, Profile, Rule, Slices

# An A100 40GB, as nvidia-smi mig -lgipp lists it.
A100 = Slices(
    memory_slices=8,
    compute_slices=7,
    profiles={
        "CUSTOM_MIG_1G_5GB": Profile(1, 1, (0, 1, 2, 3, 4, 5, 6)),
        "CUSTOM_MIG_1G_10GB": Profile(2, 1, (0, 2, 4, 6)),
        "CUSTOM_MIG_2G_10GB": Profile(2, 2, (0, 2, 4)),
        "CUSTOM_MIG_3G_20GB": Profile(4, 3, (0, 4)),
        "CUSTOM_MIG_4G_20GB": Profile(4, 4, (0,)),
        "CUSTOM_MIG_7G_40GB": Profile(8, 7, (0,)),
    },
)


def test_the_first_type_is_the_only_one_until_the_last_of_it_goes() -> None:
    rule = OneType(frozenset("AB"))
    assert partitioning.ceilings(rule, Held({})) == {"A": NO_LIMIT, "B": NO_LIMIT}
    assert partitioning.ceilings(rule, Held({"A": 2})) == {"A": NO_LIMIT, "B": 0}
    assert not rule.allows(Held({"A": 2, "B": 1}))


def test_sizes_share_a_budget() -> None:
    rule = Budget(24, {"A": 4, "B": 8})
    assert partitioning.ceilings(rule, Held({})) == {"A": 6, "B": 3}
    assert partitioning.ceilings(rule, Held({"A": 1})) == {"A": 6, "B": 2}
    assert rule.allows(Held({"A": 2, "B": 2}))
    assert not rule.allows(Held({"A": 3, "B": 2}))


def test_what_is_held_against_the_rule_stays_and_nothing_is_added() -> None:
    assert partitioning.ceilings(OneType(frozenset("AB")), Held({"A": 1, "B": 2})) == {"A": 1, "B": 2}
    assert partitioning.ceilings(Budget(10, {"A": 4, "B": 8}), Held({"A": 3})) == {"A": 3, "B": 0}
    overfull = Held({"CUSTOM_MIG_7G_40GB": 2})
    assert set(partitioning.ceilings(A100, overfull).values()) == {0, 2}


def test_an_empty_gpu_takes_what_its_maker_says() -> None:
    assert partitioning.ceilings(A100, Held({})) == {
        "CUSTOM_MIG_1G_5GB": 7,
        "CUSTOM_MIG_1G_10GB": 4,
        "CUSTOM_MIG_2G_10GB": 3,
        "CUSTOM_MIG_3G_20GB": 2,
        "CUSTOM_MIG_4G_20GB": 1,
        "CUSTOM_MIG_7G_40GB": 1,
    }


def test_a_small_instance_is_put_where_large_ones_still_fit() -> None:
    held = Held({"CUSTOM_MIG_1G_5GB": 1})
    assert A100.place(held) == (Position("CUSTOM_MIG_1G_5GB", 6),)
    ceilings = partitioning.ceilings(A100, Held(held.amounts, frozenset({Position("CUSTOM_MIG_1G_5GB", 6)})))
    assert ceilings["CUSTOM_MIG_4G_20GB"] == 1
    assert ceilings["CUSTOM_MIG_2G_10GB"] == 3
    assert ceilings["CUSTOM_MIG_7G_40GB"] == 0


def test_compute_slices_run_out_before_memory_does() -> None:
    held = Held({"CUSTOM_MIG_4G_20GB": 1, "CUSTOM_MIG_3G_20GB": 1})
    assert A100.place(held) == (Position("CUSTOM_MIG_4G_20GB", 0), Position("CUSTOM_MIG_3G_20GB", 4))
    assert not A100.allows(Held({"CUSTOM_MIG_4G_20GB": 1, "CUSTOM_MIG_2G_10GB": 2}))


def test_memory_may_be_free_in_the_wrong_place() -> None:
    scattered = frozenset({Position("CUSTOM_MIG_1G_5GB", 1), Position("CUSTOM_MIG_1G_5GB", 5)})
    held = Held({"CUSTOM_MIG_1G_5GB": 2}, scattered)
    assert partitioning.ceilings(A100, held)["CUSTOM_MIG_3G_20GB"] == 0
    assert A100.place(held.plus({"CUSTOM_MIG_3G_20GB": 1})) is None
    assert partitioning.ceilings(A100, held)["CUSTOM_MIG_2G_10GB"] == 1


def test_an_absurd_amount_is_refused_at_once() -> None:
    assert not A100.allows(Held({"CUSTOM_MIG_1G_5GB": 0x7FFFFFFF}))


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "'type' is a required property"),
        ({"type": "x"}, "not one of"),
        ({"type": "one_type"}, "resource_classes"),
        ({"type": "one_type", "resource_classes": []}, "resource_classes"),
        ({"type": "one_type", "resource_classes": ["a"]}, "resource_classes.0"),
        ({"type": "one_type", "resource_classes": ["A", "A"]}, "unique"),
        ({"type": "one_type", "resource_classes": ["A"], "budget": 1}, "budget"),
        ({"type": "budget", "budget": 0, "costs": {"A": 1}}, "budget"),
        ({"type": "budget", "budget": 1, "costs": {}}, "costs"),
        ({"type": "budget", "budget": 1, "costs": {"A": 1.5}}, "costs.A"),
        ({"type": "slices", "memory_slices": 4, "compute_slices": 7, "profiles": {}}, "profiles"),
        ({**A100.document(), "memory_slices": 17}, "memory_slices"),
        (
            {
                "type": "slices",
                "memory_slices": 4,
                "compute_slices": 4,
                "profiles": {"A": {"memory_slices": 2, "compute_slices": 1, "starts": [0, 3]}},
            },
            "A would end after the last memory slice",
        ),
        (
            {
                "type": "slices",
                "memory_slices": 4,
                "compute_slices": 1,
                "profiles": {"A": {"memory_slices": 2, "compute_slices": 2, "starts": [0]}},
            },
            "A takes more compute slices",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(document: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.InvalidError, match=told):
        partitioning.parse(document)


@pytest.mark.parametrize("rule", [OneType(frozenset("AB")), Budget(24, {"A": 4, "B": 8}), A100])
def test_a_rule_is_what_its_document_says(rule: Rule) -> None:
    assert partitioning.parse(rule.document()) == rule


# --- for all rules ------------------------------------------------------------------------------------------------

CLASSES = ("A", "B", "C")


@st.composite
def slices(draw: st.DrawFn) -> Slices:
    memory, compute = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    profiles = {}
    for name in draw(st.sets(st.sampled_from(CLASSES), min_size=1)):
        size = draw(st.integers(1, memory))
        starts = draw(st.sets(st.integers(0, memory - size), min_size=1))
        profiles[name] = Profile(size, draw(st.integers(1, compute)), tuple(sorted(starts)))
    return Slices(memory, compute, profiles)


rules = st.one_of(
    st.sets(st.sampled_from(CLASSES), min_size=1).map(lambda names: OneType(frozenset(names))),
    st.builds(
        Budget,
        st.integers(1, 20),
        st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 6), min_size=1),
    ),
    slices(),
)
amounts = st.dictionaries(st.sampled_from(CLASSES), st.integers(0, 4))


def allowed_by_definition(rule: Rule, held: Held) -> bool:
    """Say what the rules mean in the plainest way: for slices, try every way to put everything."""
    counts = {name: held.amounts.get(name, 0) for name in rule.classes}
    if isinstance(rule, OneType):
        return len([name for name, count in counts.items() if count]) < 2
    if isinstance(rule, Budget):
        return sum(rule.costs[name] * count for name, count in counts.items()) <= rule.budget
    if sum(rule.profiles[name].compute_slices * count for name, count in counts.items()) > rule.compute_slices:
        return False
    placed = Counter(position.resource_class for position in held.positions)
    new = [name for name, count in counts.items() for _ in range(count - placed[name])]
    if len(new) + len(held.positions) > rule.memory_slices:
        return False
    for starts in itertools.product(*(rule.profiles[name].starts for name in new)):
        everyone = [*held.positions, *map(Position, new, starts)]
        cells = [
            position.start + offset
            for position in everyone
            for offset in range(rule.profiles[position.resource_class].memory_slices)
        ]
        if len(cells) == len(set(cells)):
            return True
    return False


@settings(deadline=None)
@given(rules, amounts)
def test_a_rule_allows_what_its_definition_allows(rule: Rule, held: dict[str, int]) -> None:
    assert rule.allows(Held(held)) == allowed_by_definition(rule, Held(held))


@settings(deadline=None)
@given(rules, st.data())
def test_ceilings_are_what_trying_finds(rule: Rule, data: st.DataObject) -> None:
    """Whatever was added and taken before, a class's ceiling is the most of it that would be allowed."""
    held = grown(rule, data)
    for name, ceiling in partitioning.ceilings(rule, held).items():
        has = held.amounts.get(name, 0)
        more = 0
        while more <= 20 and allowed_by_definition(rule, held.plus({name: more + 1})):
            more += 1
        assert ceiling == NO_LIMIT if more > 20 else ceiling == has + more


def grown(rule: Rule, data: st.DataObject) -> Held:
    """Return what is left after some units came, where the rule let them, and some went."""
    amounts: Counter[str] = Counter()
    positions: frozenset[Position] = frozenset()
    steps = data.draw(st.lists(st.tuples(st.sampled_from(sorted(rule.classes)), st.booleans()), max_size=8))
    for name, comes in steps:
        if comes:
            held = Held({**amounts, name: amounts[name] + 1}, positions)
            if not rule.allows(held):
                continue
            amounts[name] += 1
            if isinstance(rule, Slices):
                chosen = rule.place(held)
                assert chosen is not None
                positions |= set(chosen)
        elif amounts[name]:
            amounts[name] -= 1
            positions -= set(sorted(position for position in positions if position.resource_class == name)[:1])
        assert allowed_by_definition(rule, Held(amounts, positions))
        assert not isinstance(rule, Slices) or len(positions) == amounts.total()
    return Held(amounts, positions)


@settings(deadline=None)
@given(slices(), amounts)
def test_units_that_come_together_are_placed_whenever_there_is_a_way(rule: Slices, wanted: dict[str, int]) -> None:
    held = Held(wanted)
    chosen = rule.place(held)
    assert (chosen is not None) == allowed_by_definition(rule, held)
    if chosen is not None:
        assert allowed_by_definition(rule, Held(wanted, frozenset(chosen)))
        assert rule.place(held) == chosen
