# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A database of each kind, and two schedulers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import databases
import pytest
from puppets import Site

from accelsched import conf as options
from accelsched import rpc
from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet
from accelsched.scheduler.service import Scheduler


@pytest.fixture(params=databases.KINDS)
def db(request: pytest.FixtureRequest, templates: databases.Templates, tmp_path: Path) -> Iterator[Database]:
    with templates.copy(request.param, tmp_path) as database:
        yield database


@pytest.fixture
def schedulers(db: Database) -> Iterator[list[Scheduler]]:
    """Two schedulers with a picture each, as two processes would have."""
    conf = options.new()
    conf.set_default("transport_url", "fake://")
    options.parse(conf, [], "test")
    conf.set_override("poll_interval", 0.05, group="scheduler")
    transport = rpc.transport(conf)
    made = [Scheduler(conf, db, Fleet(db), rpc.AgentClient(transport)) for _ in range(2)]
    yield made
    for scheduler in made:
        if scheduler.running:
            scheduler.stop()


@pytest.fixture
def site(db: Database, schedulers: list[Scheduler]) -> Site:
    """A control plane whose hosts' agents say what the test has them say."""
    return Site(db, schedulers[0])
