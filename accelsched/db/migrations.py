# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring a database to the newest schema, by alembic."""

from __future__ import annotations

import importlib.metadata
import pathlib
import uuid

import os_resource_classes
import os_traits
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.compute import ControlPlane
from accelsched.db.engine import Database
from accelsched.db.placement import ResourceClass, Trait


def scripts_directory() -> pathlib.Path:
    """Return where the migration scripts are: the checkout's, or what the wheel installed.

    :raises accelsched.errors.ConfigurationError: when neither is there
    """
    checkout = pathlib.Path(__file__).resolve().parents[2] / "migrations"
    if (checkout / "env.py").is_file():
        return checkout
    for file in importlib.metadata.files("accelsched") or []:
        if file.name == "env.py" and file.parent.name == "migrations":
            return pathlib.Path(str(file.locate())).resolve().parent
    raise errors.ConfigurationError("the migrations are not installed; install accelsched from its wheel or checkout")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_directory()))
    return config


def current(database: Database) -> str | None:
    """Return the revision that the database is at, None when it is empty."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """Return the revision that this release wants."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def require_current(database: Database) -> None:
    """Refuse to work on a schema of another release.

    :raises accelsched.errors.ConfigurationError: saying what to do
    """
    found, wanted = current(database), newest()
    if found != wanted:
        raise errors.ConfigurationError(
            f"[database] connection: the schema is at {found or 'nothing'}, this release wants {wanted}; "
            "run accelsched-manage db upgrade"
        )


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate forward and make sure that the standard classes and traits of this release are there.

    Repeatable, and safe to run by several processes at once: they queue.
    """
    config = _config()
    with database.engine.connect() as connection, _exclusive(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    database.transact(seed)


class _exclusive:  # noqa: N801 - reads as the statement it is
    """One migration at a time, by the database's own advisory lock; SQLite's write lock does it by itself."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection
        self._name = connection.dialect.name

    def __enter__(self) -> None:
        if self._name == "postgresql":
            self._connection.exec_driver_sql("SELECT pg_advisory_lock(7021524)")
        elif self._name in ("mysql", "mariadb"):
            self._connection.exec_driver_sql("SELECT GET_LOCK('accelsched-migrate', 600)")

    def __exit__(self, *_exc: object) -> None:
        if self._name == "postgresql":
            self._connection.exec_driver_sql("SELECT pg_advisory_unlock(7021524)")
        elif self._name in ("mysql", "mariadb"):
            self._connection.exec_driver_sql("SELECT RELEASE_LOCK('accelsched-migrate')")


def seed(session: Session) -> None:
    """Add what every database has and this one has not yet: its identity, the standard classes and traits."""
    if session.get(ControlPlane, 1) is None:
        session.add(ControlPlane(id=1, uuid=str(uuid.uuid4())))
    for table, wanted in ((ResourceClass, os_resource_classes.STANDARDS), (Trait, os_traits.get_traits())):
        present = set(session.scalars(select(table.name)))
        missing = [{"name": name} for name in wanted if name not in present]
        if missing:
            session.execute(insert(table), missing)
