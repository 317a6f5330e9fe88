# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes that share a transaction: each has its own answer, and nobody's failure is another's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
from oslo_db import exception as db_exception
from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.engine import Database
from accelsched.db.placement import Consumer
from accelsched.placement import allocations, claims, inventories, provider_changes, providers, usages, write_queue
from accelsched.placement.claims import Claim, ConsumerAllocation
from accelsched.placement.inventories import Amounts
from accelsched.placement.write_queue import WriteQueue

pytestmark = pytest.mark.every_database

A, B, MISSING = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in "abc")


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, templates: databases.Templates, tmp_path: Path) -> Iterator[Database]:
    with templates.copy(request.param, tmp_path) as made:
        for uuid in (A, B):
            made.transact(lambda session, uuid=uuid: provider_changes.apply(session, providers.Creation(uuid, uuid)))
            made.transact(lambda session, uuid=uuid: inventories.add(session, uuid, "VGPU", Amounts(3)))
        yield made


def _claim(number: int, provider: str = A, amount: int = 1, generation: int | None = None) -> ConsumerAllocation:
    wanted = {provider: {"VGPU": amount}} if amount else {}
    return ConsumerAllocation(f"eeeeeeee-0000-4000-8000-{number:012d}", "p", "u", wanted, generation=generation)


def _each(database: Database, *changes: ConsumerAllocation) -> list[type | None]:
    refusals = database.transact(lambda session: claims.replace_each(session, [Claim([it]) for it in changes]))
    return [None if refusal is None else type(refusal) for refusal in refusals]


def _used(database: Database) -> list[dict[str, int]]:
    with database.reading() as session:
        return [usages.of_provider(session, providers.get(session, uuid).id) for uuid in (A, B)]


def test_each_claim_is_decided_on_top_of_those_before_it(database: Database) -> None:
    wanted = [
        _claim(1, amount=2),
        _claim(2, amount=2),
        _claim(3, MISSING),
        _claim(4, generation=7),
        _claim(5, amount=1),
        _claim(6, B, amount=3),
    ]
    assert _each(database, *wanted) == [
        None,
        errors.CapacityExceededError,
        errors.InvalidError,
        errors.ConcurrentUpdateError,
        None,
        None,
    ]
    assert _used(database) == [{"VGPU": 3}, {"VGPU": 3}]
    # What one gives back, the next may have.
    assert _each(database, _claim(1, amount=0, generation=1), _claim(7, amount=2)) == [None, None]
    assert _used(database) == [{"VGPU": 3}, {"VGPU": 3}]
    with database.reading() as session:
        refused = [f"eeeeeeee-0000-4000-8000-{number:012d}" for number in (1, 2, 3, 4)]
        assert session.scalars(select(Consumer.uuid).where(Consumer.uuid.in_(refused))).all() == []


def test_generations_grow_as_often_as_claims_were_admitted(database: Database) -> None:
    def generations() -> list[int]:
        with database.reading() as session:
            return [providers.get(session, uuid).generation for uuid in (A, B)]

    before = generations()
    _each(database, _claim(1), _claim(2), _claim(3, B), _claim(4, amount=9))
    assert [now - then for now, then in zip(generations(), before, strict=True)] == [2, 1]


def _at_once(writes: list[Callable[[], None]]) -> Counter[type]:
    gate = threading.Barrier(len(writes))
    results: list[type] = [RuntimeError] * len(writes)

    def run(number: int) -> None:
        gate.wait()
        try:
            writes[number]()
            results[number] = type(None)
        except Exception as exc:
            results[number] = type(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(writes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return Counter(results)


def test_of_many_at_once_each_gets_its_own_answer(database: Database) -> None:
    queues = [WriteQueue(database, claims.replace_each), WriteQueue(database, claims.replace_each)]
    some = [_claim(number, A if number % 2 else B) for number in range(16)]
    same = [_claim(99, generation=None, amount=9) for _ in range(4)]
    writes = [lambda n=n, it=it: queues[n % 2].write(Claim([it])) for n, it in enumerate([*some, *same])]
    assert _at_once(writes) == {type(None): 6, errors.CapacityExceededError: 14}
    assert _used(database) == [{"VGPU": 3}, {"VGPU": 3}]


def test_a_new_consumer_that_two_processes_claim_for_is_one_ones(database: Database) -> None:
    queues = [WriteQueue(database, claims.replace_each) for _ in range(4)]
    for number in range(5):
        claim, away = _claim(number, generation=None), _claim(number, amount=0, generation=1)
        results = _at_once([lambda queue=queue, it=claim: queue.write(Claim([it])) for queue in queues])
        assert results == {type(None): 1, errors.ConcurrentUpdateError: 3}
        queues[0].write(Claim([away]))


def test_those_that_wait_share_a_transaction_and_one_that_breaks_it_is_alone(
    database: Database,
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    sizes: list[int] = []

    def slowly(session: Session, some: Any) -> Any:
        sizes.append(len(some))
        entered.set()
        go_on.wait(30)
        if any(change.consumer_uuid == _claim(3).consumer_uuid for claim in some for change in claim.changes):
            raise ValueError("a claim that no database takes")
        return claims.replace_each(session, some)

    queue = WriteQueue(database, slowly)
    results: dict[int, Exception | None] = {}

    def run(number: int) -> None:
        try:
            queue.write(Claim([_claim(number, A if number < 3 else B)]))
            results[number] = None
        except Exception as exc:
            results[number] = exc

    first = threading.Thread(target=run, args=(1,))
    first.start()
    assert entered.wait(30)
    others = [threading.Thread(target=run, args=(number,)) for number in (2, 3, 4)]
    for thread in others:
        thread.start()
    while len(queue._waiting) < 3:
        threading.Event().wait(0.01)
    go_on.set()
    for thread in (first, *others):
        thread.join(60)
    assert sizes == [1, 3, 1, 1, 1], "the three went together, then each alone"
    assert isinstance(results.pop(3), ValueError)
    assert results == {1: None, 2: None, 4: None}
    assert _used(database) == [{"VGPU": 2}, {"VGPU": 1}]


def test_those_that_were_there_a_moment_ago_are_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "_GATHERED_S", 60.0)
    entered, go_on = threading.Event(), threading.Event()
    sizes: list[int] = []

    def slowly(session: Session, some: Any) -> Any:
        sizes.append(len(some))
        entered.set()
        go_on.wait(30)
        return claims.replace_each(session, some)

    queue = WriteQueue(database, slowly)

    def start(number: int) -> threading.Thread:
        thread = threading.Thread(target=queue.write, args=(Claim([_claim(number, A if number < 3 else B)]),))
        thread.start()
        return thread

    threads = [start(1)]
    assert entered.wait(30)
    threads.append(start(2))
    while not queue._waiting:
        threading.Event().wait(0.01)
    go_on.set()
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert sizes == [1], "the second waits for whoever was answered to come again"
    threads.append(start(3))
    for thread in threads:
        thread.join(30)
    assert sizes == [1, 2]
    assert _used(database) == [{"VGPU": 2}, {"VGPU": 1}]


def test_nobody_is_told_of_success_when_the_commits_fate_is_unknown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def lost(_write: object) -> None:
        attempts.append(1)
        raise db_exception.DBConnectionError

    queue = WriteQueue(database, claims.replace_each)
    monkeypatch.setattr(database, "transact", lost)
    with pytest.raises(db_exception.DBConnectionError):
        queue.write(Claim([_claim(1)]))
    assert attempts == [1], "it may have been committed: it must not be repeated"


def test_a_shared_transaction_is_one_number_of_the_feed(database: Database) -> None:
    with database.reading() as session:
        before = feed.head(session)
    _each(database, _claim(1), _claim(2, B))
    with database.snapshot() as session:
        newest, changed = feed.changed_since(session, before) or (0, [])
        wanted = {providers.get(session, uuid).id for uuid in (A, B)}
    assert (newest, set(changed)) == (before + 1, wanted)
    with database.reading() as session:
        assert allocations.of_consumer(session, _claim(1).consumer_uuid).shares.keys() == {A}
