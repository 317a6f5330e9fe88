# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The change feed on the three databases."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import databases
import patience
import pytest
from sqlalchemy.orm import Session

from accelsched.db import feed
from accelsched.db.engine import Database
from accelsched.db.placement import ResourceProvider
from accelsched.placement.fleet import Fleet

pytestmark = pytest.mark.every_database


@pytest.fixture(params=databases.KINDS)
def db(request: pytest.FixtureRequest, templates: databases.Templates, tmp_path: Path) -> Iterator[Database]:
    with templates.copy(request.param, tmp_path) as database:
        yield database


def add(session: Session) -> int:
    name = str(uuid.uuid4())
    provider = ResourceProvider(uuid=name, name=name)
    session.add(provider)
    session.flush()
    provider.root_id = provider.id
    feed.touch(session, [provider.id])
    return provider.id


def test_a_transaction_that_commits_late_is_not_lost(db: Database) -> None:
    """One transaction draws its provider's id first and commits last; a reader in between must still see it later."""
    fleet = Fleet(db)
    fleet.warm_up()
    assert fleet.position == 0
    inserted, go_on = threading.Event(), threading.Event()
    late: list[int] = []

    def slowly(session: Session) -> None:
        late.append(add(session))
        inserted.set()
        # SQLite has one writer, so there the others come after; on the servers they overtake this one.
        go_on.wait(1.0 if db.is_sqlite else patience.LIMIT_S)

    thread = threading.Thread(target=db.transact, args=(slowly,))
    thread.start()
    assert inserted.wait(patience.LIMIT_S)
    early = [db.transact(add) for _ in range(3)]
    with fleet.reading() as picture:
        seen = set(picture.slot_of_id)
    assert set(early) <= seen
    if not db.is_sqlite:
        assert not seen & set(late)
    go_on.set()
    thread.join()
    with fleet.reading() as picture:
        assert set(picture.slot_of_id) == {*early, *late}


def test_numbers_follow_the_order_of_commit_without_gaps(db: Database) -> None:
    threads = [threading.Thread(target=db.transact, args=(add,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.snapshot() as session:
        newest, changed = feed.changed_since(session, 0) or (0, [])
    assert (newest, len(changed)) == (12, 12)


def test_what_is_rolled_back_is_not_in_the_feed(db: Database) -> None:
    def fail(session: Session) -> None:
        add(session)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        db.transact(fail)
    with db.snapshot() as session:
        assert feed.changed_since(session, 0) == (0, [])


def test_a_reader_too_far_behind_starts_over(db: Database) -> None:
    fleet = Fleet(db)
    ids = [db.transact(add)]
    with fleet.reading():
        pass
    ids += [db.transact(add) for _ in range(5)]
    db.transact(lambda session: feed.prune(session, keep=2))
    with db.snapshot() as session:
        assert feed.changed_since(session, 1) is None
    with fleet.reading() as picture:
        assert set(picture.slot_of_id) == set(ids)
