# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The database: where a transaction begins, ends, and is repeated.

One :class:`Database` a process. Writes are functions of a session, given to :meth:`Database.transact`, so that a
deadlock or a lost connection repeats the whole of them; they must do nothing but write.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy
import tenacity
from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from accelsched import errors
from accelsched.db import feed

T = TypeVar("T")

_SNAPSHOT = sqlalchemy.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
_SQLITE_BUSY_S = 60.0
_RETRIES = 20
_TRUSTED_S = 1.0
_USED_AT = "accelsched.used_at"


class CommitLostError(db_exception.DBConnectionError):
    """The connection went away during the commit itself: nobody knows whether it took.

    :ivar result: what the transaction would have returned
    """

    def __init__(self, inner: Exception, result: object) -> None:
        super().__init__(inner)
        self.result = result


class Database:
    """An engine and the three ways to use it."""

    def __init__(self, url: str, *, pool_size: int = 16, max_overflow: int = 16, recycle_s: int = 3600) -> None:
        """Connect lazily.

        :param url: SQLAlchemy URL: ``sqlite:///FILE``, ``postgresql+psycopg2://…``, ``mysql+pymysql://…``
        :raises accelsched.errors.ConfigurationError: when the URL or its driver is unusable
        """
        try:
            parsed = sqlalchemy.make_url(url)
            if parsed.get_backend_name() == "sqlite" and not parsed.database:
                raise errors.ConfigurationError(f"[database] connection: {url}: a database in memory is one thread's")
            options: dict[str, Any] = {"pool_recycle": recycle_s}
            if parsed.get_backend_name() == "sqlite":
                options["connect_args"] = {"timeout": _SQLITE_BUSY_S, "check_same_thread": False}
            else:
                options["isolation_level"] = "READ COMMITTED"
            self.engine = sqlalchemy.create_engine(parsed, pool_size=pool_size, max_overflow=max_overflow, **options)
        except (sqlalchemy.exc.ArgumentError, ImportError, TypeError) as exc:
            raise errors.ConfigurationError(f"[database] connection: {_without_password(url)}: {exc}") from exc
        exc_filters.register_engine(self.engine)
        sqlalchemy.event.listen(self.engine, "do_connect", _connect)
        sqlalchemy.event.listen(self.engine, "checkin", _note_use)
        sqlalchemy.event.listen(self.engine, "checkout", _check_unused)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        # SQLite has one writer; queueing for it here is fair and quick, while its own waiting polls.
        self._writer: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        )
        if self.is_sqlite:
            sqlalchemy.event.listen(self.engine, "connect", _sqlite_connect)
            sqlalchemy.event.listen(self.engine, "begin", _sqlite_begin)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Database:
        """Return the database of ``[database] connection``.

        :raises accelsched.errors.ConfigurationError: when it is not set or unusable
        """
        if not conf.database.connection:
            raise errors.ConfigurationError("[database] connection: is not set, for example postgresql+psycopg2:///x")
        return cls(
            conf.database.connection,
            pool_size=conf.database.max_pool_size,
            max_overflow=conf.database.max_overflow,
            recycle_s=conf.database.connection_recycle_time,
        )

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session to read with; each statement sees what was committed before it."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Give a session all of whose statements see one and the same state."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            if not self.is_sqlite:
                # Of this transaction alone. As an option of the connection it would be set outside of oslo.db's
                # sight, who names the loss of connections.
                session.execute(_SNAPSHOT)
            yield session

    def transact(self, write: Callable[[Session], T]) -> T:
        """Run ``write`` in one transaction and commit it together with the feed of what it touched.

        :param write: repeated from its start after a deadlock, a lost race or a connection lost before the commit;
            must have no effect but through its session
        :raises CommitLostError: when the connection was lost during the commit, which is not repeated
        :raises Exception: whatever ``write`` raises, after everything was rolled back
        """
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(
                (db_exception.DBDeadlock, errors.LostRaceError, _LostBeforeCommitError)
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.005, max=1.0),
            stop=tenacity.stop_after_attempt(_RETRIES),
            reraise=True,
        ):
            with attempt:
                return self._once(write)
        raise AssertionError("unreachable: tenacity either returns or raises")

    def _once(self, write: Callable[[Session], T]) -> T:
        with self._writer, Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            try:
                session.connection(execution_options={"accelsched_writing": True})
                result = write(session)
                feed.flush(session)
                session.flush()
            except db_exception.DBConnectionError as exc:
                raise _LostBeforeCommitError(exc) from exc
            except sqlalchemy.exc.OperationalError as exc:
                if self.is_sqlite and isinstance(exc.orig, sqlite3.OperationalError) and "locked" in str(exc.orig):
                    raise db_exception.DBDeadlock(exc) from exc
                raise
            try:
                session.commit()
            except db_exception.DBConnectionError as exc:
                raise CommitLostError(exc, result) from exc
            return result

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()


class _LostBeforeCommitError(db_exception.DBConnectionError):
    """The connection went away while nothing was committed: safe to repeat."""


def _connect(dialect: Any, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
    # oslo.db names the loss of a connection, not the failure to get one.
    try:
        return dialect.connect(*arguments, **options)
    except dialect.loaded_dbapi.OperationalError as exc:
        raise db_exception.DBConnectionError(exc) from exc


def _note_use(_dbapi_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


def _check_unused(dbapi_connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Find out that a server went away before a request does; one asked a moment ago need not be asked again."""
    used_at = record.info.get(_USED_AT)
    if used_at is None or time.monotonic() - used_at < _TRUSTED_S:
        return
    try:
        with contextlib.closing(dbapi_connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
        dbapi_connection.rollback()
    except Exception as exc:
        # The pool gives another connection then.
        raise sqlalchemy.exc.DisconnectionError from exc


def _without_password(url: str) -> str:
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "not a database URL"


def _sqlite_connect(dbapi_connection: sqlite3.Connection, _record: object) -> None:
    # Transactions begin where _sqlite_begin says, not where the driver guesses.
    dbapi_connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        dbapi_connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: sqlalchemy.Connection) -> None:
    writing = connection.get_execution_options().get("accelsched_writing", False)
    # A transaction that reads before it writes fails at once when another wrote in between, unless it
    # reserved the right to write at its start.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
