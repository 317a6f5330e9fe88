# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The checker of histories: it is silent about what can be true and finds what was planted."""

from __future__ import annotations

import random

from history import ALWAYS, NEVER, Claim, Holdings, Offer, Read, Sight, Use, Write, contents, generations, registers
from hypothesis import given
from hypothesis import strategies as st

GPU = ("gpu", "VGPU")


def test_a_read_may_find_either_value_of_a_write_that_it_overlaps() -> None:
    writes = [Write("x", 1, 0, 1), Write("x", 2, 2, 5)]
    for value in (1, 2):
        assert registers(writes, [Read("x", value, 3, 4)]) == []


def test_a_stale_read_is_found() -> None:
    writes = [Write("x", 1, 0, 1), Write("x", 2, 2, 3)]
    assert registers(writes, [Read("x", 2, 4, 5)]) == []
    assert registers(writes, [Read("x", 1, 4, 5)])


def test_a_lost_write_is_found() -> None:
    assert registers([Write("x", 1, 0, 1)], [Read("x", None, 2, 3)])


def test_a_value_that_nobody_wrote_and_one_read_before_it_was_written_are_found() -> None:
    assert registers([Write("x", 1, 0, 1)], [Read("x", 7, 2, 3)])
    assert registers([Write("x", 1, 5, 6)], [Read("x", 1, 2, 3)])


def test_a_read_that_goes_back_behind_another_read_is_found_even_while_the_write_goes_on() -> None:
    writes = [Write("x", 1, 0, 1), Write("x", 2, 2, 9)]
    assert registers(writes, [Read("x", 2, 3, 4), Read("x", 1, 5, 6)])
    assert registers(writes, [Read("x", 1, 3, 4), Read("x", 2, 5, 6)]) == []


def test_a_write_without_an_answer_may_have_happened_late_or_never_but_not_come_and_gone() -> None:
    writes = [Write("x", 1, 0, 1), Write("x", 2, 2, NEVER)]
    assert registers(writes, [Read("x", 1, 10, 11)]) == []
    assert registers(writes, [Read("x", 1, 10, 11), Read("x", 2, 12, 13)]) == []
    assert registers(writes, [Read("x", 2, 10, 11), Read("x", 1, 12, 13)])


def test_what_was_taken_away_stays_away() -> None:
    writes = [Write("x", 1, 1, 2), Write("x", None, 3, 4)]
    assert registers(writes, [Read("x", None, 0, 0.5), Read("x", 1, 2.5, 2.6), Read("x", None, 5, 6)]) == []
    assert registers(writes, [Read("x", 1, 5, 6)])
    assert registers(writes, [Read("x", None, 2.2, 2.8)])


def test_what_was_taken_away_had_been_there_even_if_its_write_got_no_answer() -> None:
    writes = [Write("x", 1, 1, NEVER), Write("x", None, 3, 4)]
    assert registers(writes, [Read("x", None, 0, 2), Read("x", None, 5, 6)]) == []
    assert registers(writes, [Read("x", None, 5, 6), Read("x", 1, 7, 8)])


def test_of_two_who_take_away_one_may_have_come_too_late() -> None:
    writes = [Write("x", 1, ALWAYS, ALWAYS), Write("x", None, 3, NEVER), Write("x", None, 4, 5)]
    assert registers(writes, [Read("x", 1, 3, 4.5), Read("x", None, 6, 7)]) == []
    assert registers(writes, [Read("x", 1, 6, 7)])


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_history_that_really_happened_is_never_complained_about(seed: int, count: int) -> None:
    rnd = random.Random(seed)
    writes: list[Write] = [Write("x", "first", ALWAYS, ALWAYS)]
    reads: list[Read] = []
    value: object = "first"
    for instant in range(count):
        began, ended = instant - rnd.uniform(0, 5), instant + rnd.uniform(0, 5)
        match rnd.randrange(4):
            case 0:
                value = instant
                writes.append(Write("x", value, began, rnd.choice([ended, NEVER])))
            case 1:  # unanswered, and it did not happen
                writes.append(Write("x", -instant - 1, began, NEVER))
            case _:
                reads.append(Read("x", value, began, ended))
    assert registers(writes, reads) == []


def test_generations_may_be_seen_late_only_while_the_next_is_being_made() -> None:
    made = [Sight("p", 1, 0, 1, made=True), Sight("p", 2, 2, 5, made=True)]
    assert generations([*made, Sight("p", 1, 3, 4)]) == []
    assert generations([*made, Sight("p", 2, 3, 4)]) == []
    assert generations([*made, Sight("p", 1, 6, 7)])


def test_a_generation_that_was_made_twice_is_found_which_is_a_lost_write() -> None:
    assert generations([Sight("p", 1, 0, 3, made=True), Sight("p", 1, 1, 2, made=True)])


def test_a_generation_that_was_seen_before_it_was_made_is_found() -> None:
    assert generations([Sight("p", 5, 0, 1), Sight("p", 5, 2, 3, made=True)])
    assert generations([Sight("p", 5, 0, 1), Sight("p", 6, 2, 3, made=True)]) == []


def test_a_part_is_what_the_last_write_of_it_made_it_whatever_came_in_between() -> None:
    writes = [
        Sight("p", 1, ALWAYS, ALWAYS, made=True, parts={"traits": "none"}),
        Sight("p", 2, 0, 1, made=True, parts={"traits": "A"}),
        Sight("p", 3, 2, 3, made=True, parts={"aggregates": "X"}),
    ]
    assert contents([*writes, Sight("p", 4, 4, 5, parts={"traits": "A"})], [], ["traits"]) == []
    assert contents([*writes, Sight("p", 4, 4, 5, parts={"traits": "none"})], [], ["traits"])
    assert contents([*writes, Sight("p", 1, 4, 5, parts={"traits": "A"})], [], ["traits"])


def test_a_part_may_be_what_a_write_without_an_answer_made_it_unless_another_got_its_generation() -> None:
    first = Sight("p", 1, ALWAYS, ALWAYS, made=True, parts={"traits": "none"})
    lost = Sight("p", 2, 0, NEVER, made=True, parts={"traits": "A"})
    for content in ("none", "A"):
        assert contents([first, Sight("p", 2, 4, 5, parts={"traits": content})], [lost], ["traits"]) == []
    other = Sight("p", 2, 2, 3, made=True, parts={"aggregates": "X"})
    assert contents([first, other, Sight("p", 2, 4, 5, parts={"traits": "A"})], [lost], ["traits"])


def holdings(*held: Write, capacity: int = 4) -> Holdings:
    return Holdings(held, [Write(GPU, capacity, ALWAYS, ALWAYS)])


def test_usages_are_the_sum_of_what_may_be_held() -> None:
    fleet = holdings(Write("a", {GPU: 2}, 0, 1), Write("b", {GPU: 1}, 2, 5), Write("c", {GPU: 1}, 2, NEVER))
    for used, fine in ((1, False), (2, True), (3, True), (4, True), (5, False)):
        assert (fleet.uses([Use(GPU, used, 3, 4)]) == []) is fine
    for used, fine in ((2, False), (3, True), (4, True)):
        assert (fleet.uses([Use(GPU, used, 6, 7)]) == []) is fine


def test_a_double_allocation_is_found() -> None:
    held = [Write("a", {GPU: 3}, 0, 1), Write("b", {GPU: 2}, 2, 3)]
    assert holdings(*held).claims([Claim({"b": {GPU: 2}}, True, 2, 3)])
    assert holdings(*held, capacity=5).claims([Claim({"b": {GPU: 2}}, True, 2, 3)]) == []
    # Of two at the same time either may have been the one too many; both are found by what is used then.
    twice = holdings(Write("a", {GPU: 3}, 0, 4), Write("b", {GPU: 2}, 2, 3))
    assert twice.claims([Claim({"a": {GPU: 3}}, True, 0, 4), Claim({"b": {GPU: 2}}, True, 2, 3)]) == []
    assert twice.uses([Use(GPU, 5, 5, 6)])


def test_a_claim_that_takes_less_than_before_may_be_granted_on_a_place_that_shrank() -> None:
    held = [Write("a", {GPU: 4}, 0, 1), Write("b", {GPU: 4}, 0, 1), Write("b", {GPU: 3}, 4, 5)]
    shrunk = Holdings(held, [Write(GPU, 8, ALWAYS, ALWAYS), Write(GPU, 4, 2, 3)])
    assert shrunk.claims([Claim({"b": {GPU: 3}}, True, 4, 5)]) == []
    assert shrunk.claims([Claim({"c": {GPU: 1}}, True, 4, 5)])


def test_what_was_taken_before_a_place_shrank_stays_taken() -> None:
    shrunk = Holdings([Write("a", {GPU: 4}, ALWAYS, ALWAYS)], [Write(GPU, 2, ALWAYS, ALWAYS)])
    assert shrunk.uses([Use(GPU, 4, 1, 2)]) == []


def test_a_refusal_needs_a_reason() -> None:
    held = [Write("a", {GPU: 3}, 0, 1)]
    assert holdings(*held).claims([Claim({"b": {GPU: 2}}, False, 2, 3)]) == []
    assert holdings(*held).claims([Claim({"b": {GPU: 1}}, False, 2, 3)])
    assert holdings(*held, Write("c", {GPU: 1}, 2, NEVER)).claims([Claim({"b": {GPU: 1}}, False, 3, 4)]) == []


def test_offers_are_neither_of_what_is_taken_nor_silent_about_what_is_free() -> None:
    fleet = holdings(Write("a", {GPU: 3}, 0, 1))
    for amount, offered, fine in ((1, True, True), (2, True, False), (1, False, False), (2, False, True)):
        assert (fleet.offers([Offer(GPU, amount, offered, 2, 3)]) == []) is fine
