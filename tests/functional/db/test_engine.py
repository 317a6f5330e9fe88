# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of connections to the database servers that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
import sqlalchemy
from oslo_db import exception as db_exception
from sqlalchemy import text

from accelsched.db.engine import Database

pytestmark = pytest.mark.every_database


@pytest.fixture(params=["postgresql", "mariadb"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with databases.fresh(request.param, tmp_path) as url:
        database = Database(url)
        yield database
        database.dispose()


@pytest.mark.parametrize("begin", [Database.reading, Database.snapshot])
def test_a_connection_that_is_lost_as_soon_as_it_is_taken_is_named_so(db: Database, begin: Any) -> None:
    is_postgresql = db.engine.dialect.name == "postgresql"
    doomed = "pg_terminate_backend" if is_postgresql else "KILL"
    other = sqlalchemy.create_engine(db.engine.url, poolclass=sqlalchemy.NullPool)

    @sqlalchemy.event.listens_for(db.engine, "checkout")
    def cut(dbapi_connection: Any, _record: object, _proxy: object) -> None:
        with dbapi_connection.cursor() as cursor, other.connect() as connection:
            cursor.execute(f"SELECT {'pg_backend_pid' if is_postgresql else 'connection_id'}()")
            (number,) = cursor.fetchone()
            dbapi_connection.rollback()
            connection.exec_driver_sql(f"SELECT {doomed}({number})" if is_postgresql else f"{doomed} {number}")

    with pytest.raises(db_exception.DBConnectionError), begin(db) as session:
        session.execute(text("SELECT 1"))
    sqlalchemy.event.remove(db.engine, "checkout", cut)
    with begin(db) as session:
        assert session.scalar(text("SELECT 1")) == 1


def test_a_snapshot_does_not_see_what_is_committed_after_its_first_look(db: Database) -> None:
    with db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE counted (n INTEGER)"))

    def count(session: Any) -> int:
        number: int = session.scalar(text("SELECT COUNT(*) FROM counted"))
        return number

    with db.snapshot() as snapshot, db.reading() as reading:
        assert count(snapshot) == count(reading) == 0
        db.transact(lambda session: session.execute(text("INSERT INTO counted VALUES (1)")))
        assert (count(snapshot), count(reading)) == (0, 1)
    with db.snapshot() as snapshot:
        assert count(snapshot) == 1
