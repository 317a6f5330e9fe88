# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Empty databases on the real servers of this machine. A server that is not there fails the test, it never skips."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

import sqlalchemy

KINDS = ("sqlite", "postgresql", "mariadb")

_ADMIN_URLS = {
    "postgresql": os.environ.get("ACCELSCHED_TEST_POSTGRESQL", "postgresql+psycopg2://postgres@127.0.0.1/postgres"),
    "mariadb": os.environ.get("ACCELSCHED_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1/"),
}


@contextlib.contextmanager
def fresh(kind: str, directory: pathlib.Path) -> Iterator[str]:
    """Make an empty database and drop it afterwards.

    :param directory: where SQLite's file goes
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
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield admin.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                force = " WITH (FORCE)" if kind == "postgresql" else ""
                connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
    finally:
        engine.dispose()
