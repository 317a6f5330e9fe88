# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Rules are kept by every claim, whatever came before and whoever claims at the same time."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import fleets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.db.engine import Database
from accelsched.placement import (
    allocations,
    candidates,
    capacity_rules,
    claims,
    classes,
    inventories,
    partitioning,
    provider_changes,
    providers,
    search,
    trees,
    usages,
)
from accelsched.placement.candidates import CandidateQuery, RequestGroup
from accelsched.placement.claims import Claim, ConsumerAllocation
from accelsched.placement.fleet import Fleet
from accelsched.placement.inventories import Amounts
from accelsched.placement.partitioning import Budget, Held, OneType, Position, Profile, Rule, Slices
from accelsched.placement.search import ProviderFilter
from accelsched.placement.write_queue import WriteQueue

A, B, C = "CUSTOM_A", "CUSTOM_B", "CUSTOM_C"
ONE_TYPE = OneType(frozenset({A, B}))
BUDGET = Budget(24, {A: 4, B: 8})
SLICES = Slices(8, 7, {A: Profile(1, 1, (0, 1, 2, 3, 4, 5, 6)), B: Profile(4, 3, (0, 4)), C: Profile(8, 7, (0,))})


@pytest.fixture
def fleet(database: Database) -> Fleet:
    return Fleet(database)


def new_gpu(database: Database, rule: Rule | None = None, total: int = 7) -> str:
    """Add a provider with the three classes, and perhaps a rule."""
    gpu = str(uuid.uuid4())

    def write(session: Session) -> None:
        for name in (A, B, C):
            if name not in {known.name for known in classes.find_all(session)}:
                classes.create(session, name)
        provider = provider_changes.apply(session, providers.Creation(gpu, gpu))
        stocked = inventories.Replacement(gpu, {name: Amounts(total) for name in (A, B, C)})
        provider_changes.apply(session, stocked)
        if rule is not None:
            capacity_rules.put(session, gpu, rule, expected=provider.generation + 1)

    database.transact(write)
    return gpu


def claim(database: Database, gpu: str, amounts: dict[str, int], consumer: str | None = None) -> str:
    """Make a consumer hold just this."""
    consumer = consumer or str(uuid.uuid4())
    change = ConsumerAllocation(consumer, "p", "u", {gpu: amounts} if amounts else {})
    database.transact(lambda session: claims.replace(session, [change]))
    return consumer


def stored(database: Database, gpu: str) -> capacity_rules.Stored:
    with database.snapshot() as session:
        return capacity_rules.get(session, gpu)


def offered(fleet: Fleet, gpu: str) -> set[str]:
    """Return the classes of which one unit can be had on this GPU, as searches and candidates say alike."""
    with fleet.reading() as picture:
        has = picture.row(picture.slot_of_uuid[gpu]).inventories
        found = {name for name in has if len(search.find(picture, ProviderFilter(uuid=gpu, resources={name: 1})))}
        for name in has:
            group = RequestGroup("1", {name: 1}, in_tree=gpu)
            assert bool(candidates.find(picture, CandidateQuery((group,)))) == (name in found)
    return found


def test_what_a_gpu_carries_decides_what_searches_find(database: Database, fleet: Fleet) -> None:
    gpu = new_gpu(database, ONE_TYPE)
    assert offered(fleet, gpu) == {A, B, C}
    server = claim(database, gpu, {A: 1})
    assert offered(fleet, gpu) == {A, C}
    with pytest.raises(errors.CapacityExceededError, match="one type at a time, does not allow 1 CUSTOM_A, 1 CUSTOM_B"):
        claim(database, gpu, {B: 1})
    claim(database, gpu, {B: 2}, server)  # its own A goes in the same moment
    assert offered(fleet, gpu) == {B, C}
    claim(database, gpu, {}, server)
    assert offered(fleet, gpu) == {A, B, C}


def test_sizes_share_a_budget(database: Database, fleet: Fleet) -> None:
    gpu = new_gpu(database, BUDGET)
    claim(database, gpu, {B: 2})
    assert stored(database, gpu).ceilings == {A: 2, B: 3}
    claim(database, gpu, {A: 2})
    assert offered(fleet, gpu) == {C}


def test_an_instance_gets_a_position_and_keeps_it(database: Database) -> None:
    gpu = new_gpu(database, SLICES)
    first, second = claim(database, gpu, {A: 1}), claim(database, gpu, {A: 1})
    assert dict(stored(database, gpu).positions) == {first: Position(A, 0), second: Position(A, 1)}
    assert stored(database, gpu).ceilings == {A: 7, B: 1, C: 0}
    large = claim(database, gpu, {B: 1})
    claim(database, gpu, {}, first)
    claim(database, gpu, {A: 3}, second)
    assert set(stored(database, gpu).positions) == {
        (large, Position(B, 4)),
        *((second, Position(A, start)) for start in (0, 1, 2)),
    }
    with database.reading() as session:
        assert capacity_rules.positions_of(session, [large, second]) == {
            large: {(gpu, B): [4]},
            second: {(gpu, A): [0, 1, 2]},
        }


def test_servers_that_are_claimed_together_are_placed_together(database: Database) -> None:
    gpu = new_gpu(database, SLICES)
    changes = [
        ConsumerAllocation(str(uuid.uuid4()), "p", "u", {gpu: {name: 1}}, generation=None)
        for name in (A, B, A, B, A, A)
    ]

    def take(session: Session) -> list[ConsumerAllocation]:
        kept = claims.fitting(session, changes)
        claims.replace(session, kept)
        return kept

    kept = database.transact(take)
    assert kept == [changes[i] for i in (0, 1, 2, 4, 5)]  # no compute is left for the second B, and just enough for As
    taken = [position for _, position in stored(database, gpu).positions]
    assert SLICES.allows(Held(Counter(position.resource_class for position in taken), frozenset(taken)))
    assert len(taken) == len(kept)


def test_a_rule_that_is_broken_already_is_refused_and_changes_nothing(database: Database) -> None:
    gpu = new_gpu(database)
    claim(database, gpu, {A: 1})
    claim(database, gpu, {B: 2})
    with database.reading() as session:
        generation = providers.get(session, gpu).generation
    for rule in (ONE_TYPE, Budget(19, {A: 4, B: 8}), SLICES):
        with pytest.raises(errors.ConflictError, match="does not allow 1 CUSTOM_A, 2 CUSTOM_B"):
            database.transact(lambda session, rule=rule: capacity_rules.put(session, gpu, rule, expected=generation))
    with pytest.raises(errors.ConcurrentUpdateError):
        database.transact(lambda session: capacity_rules.put(session, gpu, BUDGET, expected=generation - 1))
    with pytest.raises(errors.InvalidError, match="CUSTOM_NONE"):
        database.transact(
            lambda session: capacity_rules.put(session, gpu, Budget(1, {"CUSTOM_NONE": 1}), expected=generation)
        )
    assert stored(database, gpu).rule is None
    database.transact(lambda session: capacity_rules.put(session, gpu, BUDGET, expected=generation))
    assert stored(database, gpu).ceilings == {A: 2, B: 2}


def test_a_rule_that_comes_late_finds_positions_for_what_is_there(database: Database) -> None:
    gpu = new_gpu(database)
    server = claim(database, gpu, {A: 1, B: 1})
    with database.reading() as session:
        generation = providers.get(session, gpu).generation
    database.transact(lambda session: capacity_rules.put(session, gpu, SLICES, expected=generation))
    assert stored(database, gpu).positions == ((server, Position(A, 0)), (server, Position(B, 4)))


def test_without_its_rule_a_provider_is_an_ordinary_one(database: Database) -> None:
    gpu = new_gpu(database, SLICES)
    server = claim(database, gpu, {C: 1})
    database.transact(lambda session: capacity_rules.remove(session, gpu))
    claim(database, gpu, {A: 7})
    with database.reading() as session:
        assert capacity_rules.positions_of(session, [server]) == {}
    with pytest.raises(errors.NotFoundError):
        database.transact(lambda session: capacity_rules.remove(session, gpu))


def test_an_inventory_that_comes_later_is_under_the_rule(database: Database, fleet: Fleet) -> None:
    gpu = new_gpu(database, ONE_TYPE)
    claim(database, gpu, {A: 1})
    database.transact(lambda session: inventories.remove(session, gpu, B))
    database.transact(lambda session: inventories.add(session, gpu, B, Amounts(3)))
    assert offered(fleet, gpu) == {A, C}


def test_a_provider_goes_with_its_rule(database: Database) -> None:
    gpu = new_gpu(database, SLICES)
    claim(database, gpu, {}, claim(database, gpu, {A: 2}))
    database.transact(lambda session: providers.remove(session, gpu))


def _report(rule: dict[str, Any] | None) -> wire.HostReport:
    report = fleets.host_report("host")
    gpu = report["providers"][1]
    gpu["inventories"] = {A: fleets.amounts(8), B: fleets.amounts(4)}
    if rule is not None:
        gpu["capacity_rule"] = rule
    return report


def test_agents_say_how_devices_are_shared_and_operators_have_the_last_word(database: Database, fleet: Fleet) -> None:
    one, two = _report(ONE_TYPE.document()), _report(BUDGET.document())
    gpu = one["providers"][1]["uuid"]

    def report(now: wire.HostReport, before: wire.HostReport | None) -> None:
        known = {provider["uuid"]: provider for provider in before["providers"]} if before else {}
        database.transact(lambda session: trees.apply(session, now["providers"], known))

    report(one, None)
    claim(database, gpu, {A: 1})
    assert offered(fleet, gpu) == {A}
    with database.reading() as session:
        generation = providers.get(session, gpu).generation
    report(one, one)
    database.transact(lambda session: capacity_rules.put(session, gpu, Budget(9, {A: 1, B: 8}), expected=generation))
    report(one, one)
    assert stored(database, gpu).rule == Budget(9, {A: 1, B: 8})
    report(_report(None), one)
    assert stored(database, gpu).rule == Budget(9, {A: 1, B: 8})
    report(two, _report(None))
    assert stored(database, gpu).rule == BUDGET
    report(_report(None), two)
    assert stored(database, gpu).rule is None
    with pytest.raises(errors.InvalidError, match="capacity rule"):
        report(_report({"type": "slices"}), None)


def test_an_agents_rule_that_is_broken_already_lets_nothing_more_in(database: Database, fleet: Fleet) -> None:
    plain, ruled = _report(None), _report(SLICES.document())
    gpu = plain["providers"][1]["uuid"]
    database.transact(lambda session: trees.apply(session, plain["providers"], {}))
    small, large = claim(database, gpu, {A: 4}), claim(database, gpu, {B: 2})
    known = {provider["uuid"]: provider for provider in plain["providers"]}
    database.transact(lambda session: trees.apply(session, ruled["providers"], known))
    assert stored(database, gpu).ceilings == {A: 4, B: 2}
    assert stored(database, gpu).positions == ()
    claim(database, gpu, {B: 1}, large)  # giving back is never refused
    assert stored(database, gpu).positions == (
        *((small, Position(A, start)) for start in (0, 1, 2, 3)),
        (large, Position(B, 4)),
    )
    assert offered(fleet, gpu) == set()


@pytest.mark.parametrize(
    ("rule", "wanted", "refused"),
    [(ONE_TYPE, (A, B, A), {1}), (BUDGET, (B, B, A, B, A, A), {3, 5}), (SLICES, (B, A, B, A, C, A), {2, 4})],
    ids=["one_type", "budget", "slices"],
)
def test_claims_that_share_a_transaction_are_decided_one_after_the_other(
    database: Database, rule: Rule, wanted: Sequence[str], refused: set[int]
) -> None:
    gpu, other = new_gpu(database, rule), new_gpu(database, rule)
    before = claim(database, other, {A: 2})
    changes = [ConsumerAllocation(str(uuid.uuid4()), "p", "u", {gpu: {name: 1}}) for name in wanted]
    some = [Claim([change]) for change in changes]
    # What one gives back, the next claims have not been counting on.
    some.insert(1, Claim([ConsumerAllocation(before, "p", "u", {other: {A: 1}})]))
    outcomes = database.transact(lambda session: claims.replace_each(session, some))
    assert outcomes.pop(1) is None
    assert {number for number, outcome in enumerate(outcomes) if outcome is not None} == refused
    assert all(isinstance(outcomes[number], errors.CapacityExceededError) for number in refused)
    check(database, gpu, rule)
    check(database, other, rule)


@pytest.mark.parametrize("rule", [ONE_TYPE, BUDGET, SLICES], ids=["one_type", "budget", "slices"])
def test_claims_at_the_same_time_keep_the_rule(database: Database, rule: Rule) -> None:
    gpu = new_gpu(database, rule)
    refused = Counter[str]()
    queues = [WriteQueue(database, claims.replace_each) for _ in range(2)]

    def claim_with_others(consumer: str, amounts: dict[str, int]) -> str:
        change = ConsumerAllocation(consumer, "p", "u", {gpu: amounts} if amounts else {})
        dice.choice(queues).write(Claim([change]))
        return consumer

    dice = random.Random(1)

    def work(seed: int) -> None:
        own = random.Random(seed)
        mine: list[str] = []
        for _ in range(12):
            if mine and own.random() < 0.4:
                claim_with_others(mine.pop(), {})
                continue
            try:
                mine.append(claim_with_others(str(uuid.uuid4()), {own.choice((A, B)): 1}))
            except errors.CapacityExceededError:
                refused["full"] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert refused["full"]
    check(database, gpu, rule)


def check(database: Database, gpu: str, rule: Rule) -> Held:
    """Check that the tables keep the rule and agree with each other."""
    now = stored(database, gpu)
    with database.snapshot() as session:
        provider = providers.get(session, gpu)
        used = usages.of_provider(session, provider.id)
        shares = allocations.of_provider(session, provider.id).shares
    positions = frozenset(position for _, position in now.positions)
    held = Held(used, positions)
    assert rule.allows(held)
    assert now.ceilings == partitioning.ceilings(rule, held)
    if isinstance(rule, Slices):
        seated = Counter((consumer, position.resource_class) for consumer, position in now.positions)
        assert seated == Counter(
            {
                (consumer, name): amount
                for consumer, share in shares.items()
                for name, amount in share.resources.items()
                if name in rule.classes
            }
        )
    return held


steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # consumer
        st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 3), max_size=2),
    ),
    max_size=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rule=st.sampled_from([ONE_TYPE, BUDGET, SLICES]), steps=steps)
def test_no_sequence_of_claims_and_releases_breaks_a_rule(
    database: Database, fleet: Fleet, rule: Rule, steps: list[tuple[int, dict[str, int]]]
) -> None:
    """What is refused would have broken the rule or the capacity, and what is let in does not."""
    gpu = new_gpu(database, rule)
    consumers = [str(uuid.uuid4()) for _ in range(4)]
    held = check(database, gpu, rule)
    mine: dict[int, dict[str, int]] = {}
    for number, wanted in steps:
        before = stored(database, gpu).positions
        others = Counter(held.amounts)
        others.subtract(mine.get(number, {}))
        after = {name: others[name] + wanted.get(name, 0) for name in (A, B, C)}
        try:
            claim(database, gpu, wanted, consumers[number])
        except errors.CapacityExceededError:
            kept = [position for consumer, position in before if consumer != consumers[number]]
            for name, amount in wanted.items():
                own = [position for consumer, position in before if consumer == consumers[number]]
                kept += [position for position in own if position.resource_class == name][:amount]
            assert not rule.allows(Held(after, frozenset(kept))) or max(after.values()) > 7
        else:
            mine[number] = wanted
        held = check(database, gpu, rule)
        for name in (A, B, C):
            fits = rule.allows(held.plus({name: 1})) and held.amounts[name] < 7
            assert (name in offered(fleet, gpu)) == fits
        assert {kept for kept in before if kept[0] != consumers[number]} <= set(stored(database, gpu).positions)
