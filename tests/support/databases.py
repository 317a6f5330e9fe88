# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Empty databases on the real servers of this machine. A server that is not there fails the test, it never skips."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
import zlib
from collections.abc import Iterator

import pytest
import sqlalchemy

from accelsched.db import migrations
from accelsched.db.engine import Database

KINDS = ("sqlite", "postgresql", "mariadb")

_ADMIN_URLS = {
    "postgresql": os.environ.get("ACCELSCHED_TEST_POSTGRESQL", "postgresql+psycopg2://postgres@127.0.0.1/postgres"),
    "mariadb": os.environ.get("ACCELSCHED_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1/"),
}


# Fixtures that tests of a file share: such a file is on one kind of database.
_SHARED = ("database_url", "ours")


def one_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return tests with each on one kind of database only, that one drawn from its name; ``every_database`` on all.

    :param items: tests, one for each kind of database that it can run on
    """
    kinds: dict[str, set[str]] = {}
    drawn = [(item, *_drawn(item)) for item in items]
    for _, name, kind in drawn:
        kinds.setdefault(name, set()).add(kind)

    def chosen(name: str) -> str:
        among = sorted(kinds[name])
        return among[zlib.crc32(name.encode()) % len(among)]

    return [item for item, name, kind in drawn if not kind or kind == chosen(name)]


def _drawn(item: pytest.Item) -> tuple[str, str]:
    """Return (name that the kind of database is drawn by, kind of a test); no kind: it runs whatever others do."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("every_database"):
        return "", ""
    for fixture, value in callspec.params.items():
        if value in KINDS:
            return item.nodeid.partition("::" if fixture in _SHARED else "[")[0], value
    return "", ""


@contextlib.contextmanager
def fresh(kind: str, directory: pathlib.Path, template: str | None = None) -> Iterator[str]:
    """Make an empty database and drop it afterwards.

    :param directory: where SQLite's file goes
    :param template: of PostgreSQL: the database that it is a copy of
    :returns: its SQLAlchemy URL
    """
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'accelsched.sqlite'}"
        return
    admin = sqlalchemy.make_url(_ADMIN_URLS[kind])
    name = f"accelsched_test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(admin, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            copied = "" if template is None else f" TEMPLATE {template}"
            connection.exec_driver_sql(f"CREATE DATABASE {name}{copied}")
        try:
            yield admin.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                force = " WITH (FORCE)" if kind == "postgresql" else ""
                connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
    finally:
        engine.dispose()


class Templates:
    """Migrated databases to copy, one of each kind: that is a tenth of the work of migrating."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._made = contextlib.ExitStack()
        self._urls: dict[str, str] = {}

    def close(self) -> None:
        """Drop them."""
        self._made.close()

    @contextlib.contextmanager
    def copy(self, kind: str, directory: pathlib.Path) -> Iterator[Database]:
        """Make a copy, connect to it, and drop it afterwards.

        :param directory: where SQLite's file goes
        """
        with self.url(kind, directory) as url:
            database = Database(url)
            yield database
            database.dispose()

    @contextlib.contextmanager
    def url(self, kind: str, directory: pathlib.Path) -> Iterator[str]:
        """Make a copy and drop it afterwards.

        :param directory: where SQLite's file goes
        :returns: its SQLAlchemy URL
        """
        template = str(sqlalchemy.make_url(self._template(kind)).database)
        with fresh(kind, directory, template=template if kind == "postgresql" else None) as url:
            if kind == "sqlite":
                shutil.copyfile(template, str(sqlalchemy.make_url(url).database))
            elif kind == "mariadb":
                _copy_tables(template, url)
            yield url

    def _template(self, kind: str) -> str:
        if kind not in self._urls:
            url = self._made.enter_context(fresh(kind, self._directory))
            database = Database(url)
            migrations.upgrade(database)
            database.dispose()
            self._urls[kind] = url
        return self._urls[kind]


def _copy_tables(template: str, url: str) -> None:
    """Copy MariaDB's tables, which has no other way to copy a database."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
        for (table,) in connection.exec_driver_sql(f"SHOW TABLES FROM {template}").all():
            made = connection.exec_driver_sql(f"SHOW CREATE TABLE {template}.{table}").one()[1]
            connection.execute(sqlalchemy.text(made.replace(":", r"\:")))
            connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM {template}.{table}")
    engine.dispose()
