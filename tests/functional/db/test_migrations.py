# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Migrations go forward over data: a database of the first release is one of this release, with all that was in it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from accelsched.db import accelerator, compute, migrations, placement  # noqa: F401 - their tables
from accelsched.db.base import Base
from accelsched.db.engine import Database
from accelsched.placement import claims
from accelsched.placement.claims import ConsumerAllocation
from accelsched.placement.fleet import Fleet

pytestmark = pytest.mark.every_database

NOW = datetime.datetime(2026, 1, 1)
ROOT, GPU = ("aaaaaaaa-0000-4000-8000-00000000000a", "aaaaaaaa-0000-4000-8000-00000000000b")
OLD, NEW = ("eeeeeeee-0000-4000-8000-000000000001", "eeeeeeee-0000-4000-8000-000000000002")


@pytest.fixture(params=databases.KINDS)
def first_release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database at revision 0001 with a host, its GPU, and a server that holds two of its vGPUs."""
    with databases.fresh(request.param, tmp_path) as url:
        database = Database(url)
        migrations.upgrade(database, "0001")
        with database.engine.begin() as connection:
            _fill(connection)
        yield database
        database.dispose()


def _fill(connection: sqlalchemy.Connection) -> None:
    """Insert through the tables as they are there, not as this release has them."""
    tables = sqlalchemy.MetaData()
    tables.reflect(connection)

    def insert(table: str, **values: Any) -> None:
        connection.execute(tables.tables[table].insert().values(**values))

    class_id = connection.scalar(
        sqlalchemy.select(tables.tables["resource_classes"].c.id).where(
            tables.tables["resource_classes"].c.name == "VGPU"
        )
    )
    moments = {"created_at": NOW, "updated_at": NOW}
    insert("resource_providers", id=1, uuid=ROOT, name="host", generation=3, root_id=1, **moments)
    insert("resource_providers", id=2, uuid=GPU, name="gpu", generation=5, root_id=1, parent_id=1, **moments)
    insert(
        "inventories",
        provider_id=2,
        class_id=class_id,
        total=8,
        reserved=0,
        min_unit=1,
        max_unit=8,
        step_size=1,
        allocation_ratio=1.0,
        used=2,
        updated_at=NOW,
    )
    insert("consumers", id=1, uuid=OLD, project_id="p", user_id="u", generation=1, **moments)
    insert("allocations", consumer_id=1, provider_id=2, class_id=class_id, used=2, updated_at=NOW)


def test_what_the_first_release_wrote_is_there_after_every_step(first_release: Database) -> None:
    scripts = ScriptDirectory(str(migrations.scripts_directory()))
    steps = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    assert steps[0] == "0001"
    for revision in steps[1:]:
        migrations.upgrade(first_release, revision)
        assert migrations.current(first_release) == revision
        with first_release.engine.connect() as connection:
            held = connection.exec_driver_sql(
                "SELECT c.uuid, p.uuid, a.used FROM allocations a JOIN consumers c ON c.id = a.consumer_id "
                "JOIN resource_providers p ON p.id = a.provider_id"
            ).all()
        assert held == [(OLD, GPU, 2)]
    migrations.require_current(first_release)


def test_a_database_of_the_first_release_is_used_as_it_was(first_release: Database) -> None:
    migrations.upgrade(first_release)
    with Fleet(first_release).reading() as picture:
        gpu = picture.row(picture.slot_of_uuid[GPU])
        assert (gpu.name, gpu.generation, gpu.inventories["VGPU"].used) == ("gpu", 5, 2)
        assert picture.having_free("VGPU", 6)[picture.slot_of_uuid[GPU]]
        assert not picture.having_free("VGPU", 7)[picture.slot_of_uuid[GPU]]
    change = ConsumerAllocation(NEW, "p", "u", {GPU: {"VGPU": 6}}, generation=None)
    first_release.transact(lambda session: claims.replace(session, [change]))
    first_release.transact(lambda session: claims.release(session, [OLD]))
    with Fleet(first_release).reading() as picture:
        assert picture.row(picture.slot_of_uuid[GPU]).inventories["VGPU"].used == 6


def test_migrating_again_changes_nothing_and_the_tables_are_what_the_models_say(first_release: Database) -> None:
    migrations.upgrade(first_release)
    migrations.upgrade(first_release)
    assert migrations.current(first_release) == migrations.newest()
    with first_release.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
