# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Changes of providers that share a transaction: each is decided by itself and written as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import patience
import pytest
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.engine import Database
from accelsched.placement import (
    claims,
    inventories,
    provider_changes,
    provider_rows,
    providers,
    traits,
)
from accelsched.placement.claims import Claim, ConsumerAllocation
from accelsched.placement.inventories import Amounts, InventoryInUseError
from accelsched.placement.provider_changes import Change
from accelsched.placement.providers import Creation, DuplicateProviderError, ProviderNotFoundError
from accelsched.placement.write_queue import WriteQueue

ROOT, A, B, C, D, MISSING = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in "0abcde")


def _each(database: Database, *changes: Change[Any]) -> list[Any]:
    return database.transact(lambda session: provider_changes.apply_each(session, changes))


def _kinds(outcomes: Sequence[Any]) -> list[type | None]:
    return [type(it) if isinstance(it, Exception) else None for it in outcomes]


def _shown(database: Database, uuid: str) -> tuple[int, dict[str, int], list[str]]:
    """Return a provider's generation, its totals and its traits."""
    with database.snapshot() as session:
        provider = providers.get(session, uuid)
        stocks = inventories.of_provider(session, provider.id)
        found = traits.of_provider(session, provider.id)
    return provider.generation, {name: it.amounts.total for name, it in stocks.items()}, [it.name for it in found]


def test_each_is_decided_by_itself_and_one_that_is_refused_changes_nothing(database: Database) -> None:
    assert _kinds(_each(database, *(Creation(uuid, f"n{uuid}") for uuid in (ROOT, B, C, D)))) == [None] * 4
    outcomes = _each(
        database,
        Creation(A, "a child", ROOT),
        inventories.Replacement(B, {"VCPU": Amounts(4), "VGPU": Amounts(2, step_size=2)}, expected=0),
        traits.Replacement(C, ["HW_CPU_X86_AVX2", "COMPUTE_NODE"], expected=0),
        inventories.Replacement(D, {"VCPU": Amounts(4)}, expected=7),
        Creation(MISSING, f"n{B}"),
        Creation(f"{MISSING[:-1]}1", "of no parent", MISSING),
        traits.Replacement(MISSING, []),
    )
    assert _kinds(outcomes) == [
        *[None] * 3,
        errors.ConcurrentUpdateError,
        DuplicateProviderError,
        errors.InvalidError,
        ProviderNotFoundError,
    ]
    child, (stocked, stocks), (marked, found) = outcomes[:3]
    with database.reading() as session:
        assert child == providers.get(session, A)
        assert (child.root_uuid, child.parent_uuid, child.generation) == (ROOT, ROOT, 0)
        root = providers.get(session, ROOT)
        assert (root.root_id, root.parent_uuid) == (root.id, None)
    assert (stocked.generation, list(stocks)) == (1, ["VCPU", "VGPU"])
    assert (marked.generation, [it.name for it in found]) == (1, ["COMPUTE_NODE", "HW_CPU_X86_AVX2"])
    assert _shown(database, B) == (1, {"VCPU": 4, "VGPU": 2}, [])
    assert _shown(database, C) == (1, {}, ["COMPUTE_NODE", "HW_CPU_X86_AVX2"])
    assert _shown(database, D) == (0, {}, [])


def test_what_is_there_is_changed_kept_or_removed(database: Database) -> None:
    _each(database, Creation(A, "a"), Creation(B, "b"))
    _each(
        database,
        inventories.Replacement(A, {"VCPU": Amounts(4), "VGPU": Amounts(2)}),
        traits.Replacement(B, ["COMPUTE_NODE", "HW_CPU_X86_AVX2"]),
    )
    claim = Claim([ConsumerAllocation("eeeeeeee-0000-4000-8000-000000000001", "p", "u", {A: {"VCPU": 3}})])
    database.transact(lambda session: claims.replace_each(session, [claim]))
    outcomes = _each(
        database,
        inventories.Replacement(A, {"VGPU": Amounts(2)}),
        traits.Replacement(B, ["HW_CPU_X86_AVX2", "HW_CPU_X86_AVX2"], expected=1),
    )
    assert _kinds(outcomes) == [InventoryInUseError, None]
    assert "VCPU" in str(outcomes[0])
    (provider, stocks), (_, found) = _each(
        database,
        inventories.Replacement(A, {"PGPU": Amounts(1), "VCPU": Amounts(8, reserved=1, allocation_ratio=0.5)}),
        traits.Replacement(B, ["HW_CPU_X86_AVX2"], expected=2),
    )
    assert (provider.generation, stocks["VCPU"].used) == (3, 3)
    assert [it.name for it in found] == ["HW_CPU_X86_AVX2"]
    assert _shown(database, A) == (3, {"PGPU": 1, "VCPU": 8}, [])
    assert _shown(database, B) == (2, {}, ["HW_CPU_X86_AVX2"]), "the same traits again are no change"
    with database.reading() as session:
        kept = inventories.of_provider(session, provider.id)["VCPU"]
        assert (kept.amounts, kept.used) == (Amounts(8, reserved=1, allocation_ratio=0.5), 3)


def test_changes_that_go_together_are_one_number_of_the_feed(database: Database) -> None:
    _each(database, Creation(A, "a"), Creation(B, "b"))
    with database.reading() as session:
        before = feed.head(session)
    _each(
        database,
        Creation(C, "c", A),
        inventories.Replacement(B, {"VCPU": Amounts(4)}),
        inventories.Replacement(A, {"VCPU": Amounts(4)}, expected=5),
    )
    with database.snapshot() as session:
        newest, changed = feed.changed_since(session, before) or (0, [])
        assert (newest, set(changed)) == (before + 1, {providers.get(session, uuid).id for uuid in (B, C)})


def test_more_traits_than_one_statement_takes_are_read_in_several(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_rows, "_MOST_NAMES", 2)
    names = [f"CUSTOM_{number}" for number in range(5)]
    for name in names:
        database.transact(lambda session, name=name: traits.ensure(session, name))
    _each(database, Creation(A, "a"))
    assert _kinds(_each(database, traits.Replacement(A, names))) == [None]
    assert _shown(database, A) == (1, {}, names)


def test_a_name_that_the_database_takes_for_another_is_taken(database: Database) -> None:
    _each(database, Creation(A, "name"))
    alike = database.engine.dialect.name in ("mysql", "mariadb")  # without the spaces at the end
    assert _kinds(_each(database, Creation(B, "name "))) == [DuplicateProviderError if alike else None]


def _at_once(*writes: Callable[[], Any]) -> list[Any]:
    gate = threading.Barrier(len(writes))
    outcomes: list[Any] = [RuntimeError("did not end")] * len(writes)

    def run(number: int) -> None:
        gate.wait()
        try:
            outcomes[number] = writes[number]()
        except errors.AccelschedError as exc:
            outcomes[number] = exc

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(writes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience.LIMIT_S)
    return outcomes


@pytest.mark.parametrize("what", ["parent", "trait"])
def test_what_a_change_refers_to_and_its_removal_never_both_succeed(database: Database, what: str) -> None:
    _each(database, Creation(ROOT, "root"))
    for number in range(8):
        _each(database, Creation(A, f"parent-{number}", ROOT))
        database.transact(lambda session: traits.ensure(session, "CUSTOM_T"))
        change: Change[Any]
        removal: Callable[[Session], None]
        if what == "parent":
            change, removal = Creation(B, f"child-{number}", A), lambda session: providers.remove(session, A)
        else:
            change, removal = traits.Replacement(A, ["CUSTOM_T"]), lambda session: traits.remove(session, "CUSTOM_T")
        changed, removed = _at_once(
            lambda change=change: _each(database, change)[0],
            lambda removal=removal: database.transact(removal),
        )
        if isinstance(changed, Exception):
            assert (type(changed), removed) == (errors.InvalidError, None)
        else:
            assert isinstance(removed, errors.InUseError)
            gone = [B] if what == "parent" else []
            for uuid in gone:
                database.transact(lambda session, uuid=uuid: providers.remove(session, uuid))
        if what == "trait" or not isinstance(changed, Exception):
            database.transact(lambda session: providers.remove(session, A))


def test_a_new_child_and_a_write_to_its_parent_do_not_wait_for_each_other_in_a_circle(database: Database) -> None:
    _each(database, Creation(ROOT, "root"))
    _each(database, Creation(A, "a", ROOT))
    _each(database, Creation(B, "b"))
    attempts = {"changes": 0, "other": 0}
    has_begun = threading.Event()

    def change(session: Session) -> list[Any]:
        attempts["changes"] += 1
        some: list[Change[Any]] = [inventories.Replacement(B, {"VCPU": Amounts(4)}), Creation(C, "c", A)]
        return provider_changes.apply_each(session, some)

    def other(session: Session) -> None:
        attempts["other"] += 1
        providers.lock(session, A)
        has_begun.set()
        # For the changes to get as far as they can; where they get is theirs.
        threading.Event().wait(0.5)
        providers.lock(session, B)

    def after() -> list[Any]:
        assert has_begun.wait(patience.LIMIT_S)
        return database.transact(change)

    _, outcomes = _at_once(lambda: database.transact(other), after)
    assert _kinds(outcomes) == [None, None]
    assert attempts == {"changes": 1, "other": 1}, "a deadlock was broken and repeated"


def test_of_changes_that_wait_together_those_of_one_provider_come_one_after_the_other(database: Database) -> None:
    sizes: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def slowly(session: Session, changes: Sequence[Change[Any]]) -> list[Any]:
        sizes.append(len(changes))
        entered.set()
        go_on.wait(patience.LIMIT_S)
        return provider_changes.apply_each(session, changes)

    queue = WriteQueue[Change[Any]](database, slowly)
    outcomes: dict[int, Any] = {}

    def start(number: int, change: Change[Any]) -> threading.Thread:
        def run() -> None:
            try:
                outcomes[number] = queue.write(change)
            except errors.AccelschedError as exc:
                outcomes[number] = type(exc)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [start(0, Creation(A, "a"))]
    assert entered.wait(patience.LIMIT_S)
    some: list[Change[Any]] = [
        inventories.Replacement(A, {"VCPU": Amounts(4)}, expected=0),
        Creation(B, "b"),
        traits.Replacement(A, ["COMPUTE_NODE"], expected=0),
        Creation(C, "b"),
    ]
    for number, change in enumerate(some, start=1):
        threads.append(start(number, change))
        while len(queue._waiting) < number:
            threading.Event().wait(0.01)
    go_on.set()
    for thread in threads:
        thread.join(patience.LIMIT_S)
    assert sizes == [1, 2, 2]
    assert outcomes[3] is errors.ConcurrentUpdateError
    assert outcomes[4] is DuplicateProviderError
    assert _shown(database, A) == (1, {"VCPU": 4}, [])
