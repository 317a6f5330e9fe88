# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Writers that meet: one of them wins, nothing is half done."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import patience
import pytest
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.engine import Database
from accelsched.placement import (
    aggregates,
    allocations,
    claims,
    classes,
    inventories,
    provider_changes,
    providers,
    traits,
    usages,
)
from accelsched.placement.claims import ConsumerAllocation
from accelsched.placement.fleet import Fleet
from accelsched.placement.inventories import Amounts
from accelsched.placement.provider_changes import Change

pytestmark = pytest.mark.every_database

T = TypeVar("T")

A, B, C = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in "abc")
AGGREGATES = [f"dddddddd-0000-4000-8000-{n:012d}" for n in range(20)]


def _together(database: Database, writes: Sequence[Callable[[Session], T]]) -> list[T | Exception]:
    """Run transactions at the same time and return what each returned or raised."""
    gate = threading.Barrier(len(writes))
    results: list[T | Exception] = [RuntimeError("did not end")] * len(writes)

    def run(index: int) -> None:
        gate.wait()
        try:
            results[index] = database.transact(writes[index])
        except errors.AccelschedError as exc:
            results[index] = exc

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(writes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience.LIMIT_S)
    return results


def _kinds(results: Sequence[Any]) -> Counter[type]:
    return Counter(type(result) for result in results)


def _change(database: Database, change: Change[Any]) -> None:
    database.transact(lambda session: provider_changes.apply(session, change))


def _provider(database: Database, uuid: str, parent: str | None = None) -> None:
    _change(database, providers.Creation(uuid, uuid, parent))


def _consumer(number: int) -> str:
    return f"eeeeeeee-0000-4000-8000-{number:012d}"


def test_the_last_unit_goes_to_one_of_many(database: Database) -> None:
    _provider(database, A)
    database.transact(lambda session: inventories.add(session, A, "VGPU", Amounts(3)))

    def claim(number: int) -> Callable[[Session], None]:
        change = ConsumerAllocation(_consumer(number), "p", "u", {A: {"VGPU": 1}}, generation=None)
        return lambda session: claims.replace(session, [change])

    results = _together(database, [claim(number) for number in range(8)])
    assert _kinds(results) == {type(None): 3, errors.CapacityExceededError: 5}
    with database.reading() as session:
        assert usages.of_provider(session, providers.get(session, A).id) == {"VGPU": 3}
        assert usages.of_project(session, "p") == {"VGPU": 3}


def test_who_names_no_generation_of_a_consumer_is_not_refused_for_it(database: Database) -> None:
    _provider(database, A)
    database.transact(lambda session: inventories.add(session, A, "VGPU", Amounts(100)))
    consumer = _consumer(1)

    def claim(amount: int) -> Callable[[Session], None]:
        change = ConsumerAllocation(consumer, "p", "u", {A: {"VGPU": amount}})
        return lambda session: claims.replace(session, [change])

    for _ in range(5):
        database.transact(claim(1))
        results = _together(
            database, [*(claim(n) for n in range(2, 8)), lambda session: allocations.remove(session, consumer)]
        )
        assert _kinds(results) == {type(None): 7}


def test_who_comes_too_late_is_told_so_and_not_that_there_is_no_room(database: Database) -> None:
    for provider in (A, B):
        _provider(database, provider)
        database.transact(lambda session, provider=provider: inventories.add(session, provider, "VGPU", Amounts(4)))

    def claim(provider: str, generation: int | None) -> Callable[[Session], None]:
        change = ConsumerAllocation(_consumer(1), "p", "u", {provider: {"VGPU": 3}}, generation=generation)
        return lambda session: claims.replace(session, [change])

    database.transact(claim(A, None))
    has_moved = threading.Event()

    def move(session: Session) -> None:
        claim(B, 1)(session)
        has_moved.set()
        time.sleep(0.5)  # the other looks at the consumer, and waits for the provider

    def move_late(session: Session) -> None:
        assert has_moved.wait(patience.LIMIT_S)
        claim(B, 1)(session)

    # SQLite has one writer: there the other has to begin later.
    late = [move, claim(B, 1)] if database.is_sqlite else [move, move_late]
    assert _kinds(_together(database, late)) == {type(None): 1, errors.ConcurrentUpdateError: 1}


def test_of_writers_who_saw_the_same_generation_one_wins(database: Database) -> None:
    _provider(database, A)
    names = [f"CUSTOM_{n}" for n in range(6)]
    for name in names:
        database.transact(lambda session, name=name: traits.ensure(session, name))

    def write(name: str) -> Callable[[Session], Any]:
        return lambda session: provider_changes.apply(session, traits.Replacement(A, [name], expected=0))

    results = _together(database, [write(name) for name in names])
    assert _kinds(results)[errors.ConcurrentUpdateError] == 5
    with database.reading() as session:
        provider = providers.get(session, A)
        assert provider.generation == 1
        assert len(traits.of_provider(session, provider.id)) == 1


def test_a_claim_and_the_removal_of_its_inventory_never_both_succeed(database: Database) -> None:
    _provider(database, A)
    for number in range(10):
        _change(database, inventories.Replacement(A, {"VGPU": Amounts(1)}))
        change = ConsumerAllocation(_consumer(number), "p", "u", {A: {"VGPU": 1}})
        results = _together(
            database,
            [
                lambda session, c=change: claims.replace(session, [c]),
                lambda session: inventories.remove(session, A, "VGPU"),
            ],
        )
        assert sum(isinstance(result, errors.ConflictError) for result in results) == 1, results
        if results[0] is None:
            database.transact(lambda session, n=number: claims.replace(session, [_nothing(n)]))


def _nothing(number: int) -> ConsumerAllocation:
    return ConsumerAllocation(_consumer(number), "p", "u", {})


def test_two_moves_never_make_a_loop(database: Database) -> None:
    for uuid in (A, B):
        _provider(database, uuid)
    _provider(database, C, A)
    for _ in range(5):
        results = _together(
            database,
            [
                lambda session: providers.set_parent(session, A, B, may_leave=True),
                lambda session: providers.set_parent(session, B, C, may_leave=True),
            ],
        )
        assert _kinds(results)[errors.InvalidError] == 1, results
        with database.reading() as session:
            found = [providers.get(session, uuid) for uuid in (A, B, C)]
        assert len({provider.root_uuid for provider in found}) == 1
        assert {found[0].root_uuid} == {provider.uuid for provider in found if provider.parent_uuid is None}
        for uuid in (A, B):
            database.transact(lambda session, uuid=uuid: providers.set_parent(session, uuid, None, may_leave=True))


def test_a_child_made_while_its_tree_moves_is_in_the_tree_that_came_of_it(database: Database) -> None:
    for uuid in (A, B):
        _provider(database, uuid)
    for number in range(5):
        child = f"cccccccc-0000-4000-8000-{number:012d}"
        _together(
            database,
            [
                lambda session: providers.set_parent(session, A, B, may_leave=True),
                lambda session, child=child: provider_changes.apply(session, providers.Creation(child, child, A)),
            ],
        )
        with database.reading() as session:
            assert providers.get(session, child).root_uuid == B
        database.transact(lambda session: providers.set_parent(session, A, None, may_leave=True))
        with database.reading() as session:
            assert providers.get(session, child).root_uuid == A


def test_names_that_come_into_being_twice_at_once_are_there_once(database: Database) -> None:
    for uuid in (A, B, C):
        _provider(database, uuid)
    results = _together(
        database,
        [lambda session, uuid=uuid: aggregates.replace(session, uuid, AGGREGATES) for uuid in (A, B, C)],
    )
    assert all(sorted(found) == AGGREGATES for _, found in results)  # type: ignore[misc]
    made = _together(database, [lambda session: traits.ensure(session, "CUSTOM_NEW")] * 6)
    assert Counter(made) == {True: 1, False: 5}
    created = _together(database, [lambda session: classes.create(session, "CUSTOM_NEW")] * 6)
    assert _kinds(created) == {type(None): 1, errors.DuplicateNameError: 5}
    same = _together(
        database,
        [
            lambda session, n=n: provider_changes.apply(session, providers.Creation(_consumer(n), "same"))
            for n in range(6)
        ],
    )
    assert _kinds(same)[providers.DuplicateProviderError] == 5


def test_the_picture_has_every_kind_of_change(database: Database) -> None:
    fleet = Fleet(database)
    _provider(database, A)
    _provider(database, B, A)
    database.transact(lambda session: traits.ensure(session, "CUSTOM_T"))
    with fleet.reading():
        pass
    database.transact(lambda session: inventories.add(session, B, "VGPU", Amounts(3)))
    _change(database, traits.Replacement(B, ["CUSTOM_T"]))
    database.transact(lambda session: aggregates.replace(session, A, AGGREGATES[:1]))
    database.transact(lambda session: providers.rename(session, B, "new name"))
    with fleet.reading() as picture:
        row = picture.row(picture.slot_of_uuid[B])
        assert (row.name, row.traits, set(row.inventories)) == ("new name", {"CUSTOM_T"}, {"VGPU"})
        assert picture.row(picture.slot_of_uuid[A]).aggregates == set(AGGREGATES[:1])
        assert picture.root[picture.slot_of_uuid[B]] == picture.slot_of_uuid[A]
    database.transact(lambda session: providers.set_parent(session, B, None, may_leave=True))
    database.transact(lambda session: providers.remove(session, A))
    with fleet.reading() as picture:
        assert A not in picture.slot_of_uuid
        assert picture.root[picture.slot_of_uuid[B]] == picture.slot_of_uuid[B]
