# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Truth under concurrency: whatever any process answers is what was acknowledged before, on whichever process.

Four processes of the API on one database are hammered by sixteen clients; a checker (``tests/support/history.py``)
looks at all that they were answered. In the middle of a round a process is killed or stopped for a moment, connections
to the database are cut, or the feed is pruned. After each round the tables and what each process believes are compared
row for row.

``ACCELSCHED_TEST_HAMMER_S`` is how long each database is hammered, in seconds; ``ACCELSCHED_TEST_HAMMER_SEED`` repeats
a run's random choices, though not its timing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import databases
import hammer
import patience
import pytest
import requests
import sqlalchemy
from deployments import Api, Service, answers
from sqlalchemy.orm import Session
from stack import http

from accelsched.db import feed
from accelsched.db.engine import Database
from accelsched.placement import provider_changes, providers

pytestmark = pytest.mark.every_database

_PROCESSES = 4
_SECONDS = float(os.environ.get("ACCELSCHED_TEST_HAMMER_S", "10"))
_SEED = int(os.environ.get("ACCELSCHED_TEST_HAMMER_SEED", str(random.SystemRandom().getrandbits(32))))
_ROUND_S = 2.0
_LOGGED = 8000  # characters


class Deployment:
    """Processes of the API on a database of their own."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.engine = sqlalchemy.create_engine(url)
        # On SQLite's one file there is less to see.
        self.ports = [http.free_port() for _ in range(2 if url.startswith("sqlite") else _PROCESSES)]
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.services = [
            Service(
                "accelsched-api",
                directory / str(port),
                {
                    "DEFAULT": {"transport_url": "fake://"},
                    "api": {"auth_strategy": "noauth2", "bind_port": port, "workers": 1, "threads": 8},
                    "database": {"connection": url},
                },
                [],
            )
            for port in self.ports
        ]

    def wait(self) -> None:
        """Wait until every process answers."""
        for service, url in zip(self.services, self.urls, strict=True):
            service.wait_for(lambda url=url: answers(f"{url}/healthcheck"))  # type: ignore[misc]

    def picture(self, url: str) -> dict[str, Any]:
        """Return what one process believes."""
        picture: dict[str, Any] = Api(url).get("/v1/picture").json()["picture"]
        return picture

    def kill_one(self) -> None:
        """Kill the process behind one of the ports as no handler can notice; gunicorn starts another."""
        with contextlib.suppress(requests.ConnectionError):  # it may be away just now
            os.kill(self.picture(random.choice(self.urls))["pid"], signal.SIGKILL)

    def cut_off(self) -> None:
        """Take every connection to the database from every process."""
        for session in self._sessions():
            with self.engine.connect() as connection, contextlib.suppress(sqlalchemy.exc.DBAPIError):
                if self.engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_terminate_backend({session})")
                else:
                    connection.exec_driver_sql(f"KILL {session}")

    def pause_one(self) -> None:
        """Stop the process behind one of the ports for a moment, and let it go on with what it believed."""
        with contextlib.suppress(requests.ConnectionError):
            pid = self.picture(random.choice(self.urls))["pid"]
            os.kill(pid, signal.SIGSTOP)
            time.sleep(_ROUND_S / 4)
            os.kill(pid, signal.SIGCONT)

    def forget(self) -> None:
        """Remove all but the newest change from the feed: who has not read it must begin anew."""
        database = Database(self.url)
        database.transact(lambda session: feed.prune(session, keep=1))
        database.dispose()

    def settle(self) -> None:
        """Wait until what killed processes left in the database is done or undone, and all processes are there."""
        patience.wait(lambda: not self._sessions(busy=True))
        self.wait()

    def _sessions(self, *, busy: bool = False) -> list[int]:
        if self.engine.dialect.name == "postgresql":
            query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            condition = " AND state <> 'idle'"
        else:
            query = (
                "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
                " AND command <> 'Killed'"
            )
            condition = " AND command <> 'Sleep'"
        with self.engine.connect() as connection:
            return [row[0] for row in connection.exec_driver_sql(query + (condition if busy else ""))]

    def told_of(self, anomalies: list[str]) -> str:
        """Return what the logs say of a request that crashed."""
        crashed = re.search(r"req-[0-9a-f-]{36}", " ".join(anomalies))
        for service in self.services if crashed else ():
            _, id_, rest = service.log.read_text().partition(crashed[0])
            if id_:
                return id_ + rest[:_LOGGED]
        return ""

    def stop(self) -> None:
        """Stop all processes."""
        for service in self.services:
            service.stop()
        self.engine.dispose()


class Tables:
    """What the tables say at one instant, by SQL of its own, in the form of ``/v1/picture``."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        level = "SERIALIZABLE" if engine.dialect.name == "sqlite" else "REPEATABLE READ"
        with engine.connect().execution_options(isolation_level=level) as connection:
            self._connection = connection
            (self.position,) = self._rows("SELECT seq FROM feed_head")[0]
            self.providers = self._providers()
            self.held = self._held()
            self.traits = [name for (name,) in self._rows("SELECT name FROM traits WHERE name LIKE 'CUSTOM%%'")]
            self.miscounted = self._rows(
                "SELECT i.provider_id, i.used, COALESCE(SUM(a.used), 0) FROM inventories i LEFT JOIN allocations a"
                " ON a.provider_id = i.provider_id AND a.class_id = i.class_id"
                " GROUP BY i.provider_id, i.class_id, i.used HAVING i.used <> COALESCE(SUM(a.used), 0)"
            )

    def _rows(self, query: str) -> list[Any]:
        return list(self._connection.exec_driver_sql(query))

    def _providers(self) -> dict[str, dict[str, Any]]:
        traits, aggregates, inventories = defaultdict(list), defaultdict(list), defaultdict(dict)
        rules, positions = {}, defaultdict(list)
        for id_, rule in self._rows("SELECT provider_id, rule FROM capacity_rules"):
            rules[id_] = json.loads(rule) if isinstance(rule, str) else rule
        for id_, name, start in self._rows(
            "SELECT p.provider_id, c.name, p.start FROM instance_positions p"
            " JOIN resource_classes c ON c.id = p.class_id ORDER BY c.name, p.start"
        ):
            positions[id_].append({"resource_class": name, "start": start})
        for id_, name in self._rows(
            "SELECT p.provider_id, t.name FROM provider_traits p JOIN traits t ON t.id = p.trait_id"
        ):
            traits[id_].append(name)
        for id_, aggregate in self._rows(
            "SELECT p.provider_id, a.uuid FROM provider_aggregates p JOIN aggregates a ON a.id = p.aggregate_id"
        ):
            aggregates[id_].append(aggregate)
        names = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio", "used", "ceiling")
        for id_, name, *values in self._rows(
            f"SELECT i.provider_id, c.name, {', '.join(f'i.{name}' for name in names)}"
            " FROM inventories i JOIN resource_classes c ON c.id = i.class_id"
        ):
            inventories[id_][name] = dict(zip(names, values, strict=True))
        found = self._rows("SELECT id, uuid, name, generation, root_id, parent_id FROM resource_providers ORDER BY id")
        uuid_of = {row[0]: row[1] for row in found}
        return {
            own: {
                "uuid": own,
                "name": name,
                "generation": generation,
                "root_provider_uuid": uuid_of[root_id],
                "parent_provider_uuid": None if parent_id is None else uuid_of[parent_id],
                "traits": sorted(traits[id_]),
                "aggregates": sorted(aggregates[id_]),
                "inventories": inventories[id_],
                "capacity_rule": rules.get(id_),
                "positions": positions[id_],
            }
            for id_, own, name, generation, root_id, parent_id in found
        }

    def _held(self) -> dict[str, hammer.Holding]:
        amounts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for consumer, user, provider, used in self._rows(
            "SELECT c.uuid, c.user_id, p.uuid, a.used FROM allocations a JOIN consumers c ON c.id = a.consumer_id"
            " JOIN resource_providers p ON p.id = a.provider_id"
        ):
            amounts[consumer, user][provider] = used
        return {consumer: (user, tuple(sorted(held.items()))) for (consumer, user), held in amounts.items()}


@pytest.fixture(scope="module")
def deployment(
    request: pytest.FixtureRequest, templates: databases.Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("truth")
    with templates.url(request.param, directory) as url:
        deployment = Deployment(url, directory)
        try:
            deployment.wait()
            yield deployment
        finally:
            deployment.stop()


@pytest.mark.parametrize("deployment", ["postgresql", "mariadb"], indirect=True)
def test_whatever_any_process_answers_is_what_was_acknowledged_before(deployment: Deployment) -> None:
    print(f"ACCELSCHED_TEST_HAMMER_SEED={_SEED}")
    hammered = hammer.Hammer(deployment.urls, _SEED)
    hammered.build()
    tables = Tables(deployment.engine)
    disturbances = [deployment.kill_one, None, deployment.cut_off, deployment.pause_one, deployment.forget]
    deadline = time.monotonic() + _SECONDS
    rounds = 0
    while time.monotonic() < deadline or rounds < len(disturbances):
        before = hammer.state(hammered, tables.providers, tables.held, tables.traits, hammer.ALWAYS)
        record = hammered.run(_ROUND_S, before, disturbances[rounds % len(disturbances)])
        rounds += 1
        deployment.settle()
        old, tables = tables, Tables(deployment.engine)
        record.extend(hammer.state(hammered, tables.providers, tables.held, tables.traits, time.monotonic()))
        anomalies = record.anomalies()
        print(f"round {rounds}: {sum(record.statuses.values())} requests, {record.statuses}")
        assert anomalies == [], f"{len(anomalies)} anomalies, {anomalies[:20]}\n{deployment.told_of(anomalies)}"
        check_tables(hammered, old, tables)
        check_pictures(deployment, tables)


@pytest.mark.parametrize("deployment", databases.KINDS, indirect=True)
@pytest.mark.parametrize("has_number", [False, True], ids=["before its number is drawn", "after its number is drawn"])
def test_a_transaction_that_is_held_open_is_lost_to_no_process(deployment: Deployment, has_number: bool) -> None:
    """Transactions that began later commit first, or wait, but no picture goes past what is yet to come."""
    first = Tables(deployment.engine)
    check_pictures(deployment, first)
    database = Database(deployment.url)
    is_held, go_on = threading.Event(), threading.Event()
    late = str(uuid.uuid4())

    def slowly(session: Session) -> None:
        provider_changes.apply(session, providers.Creation(late, late))
        if has_number:
            feed.flush(session)
        is_held.set()
        go_on.wait(patience.LIMIT_S)

    def create(url: str) -> str:
        name = str(uuid.uuid4())
        answer = Api(url).post("/placement/resource_providers", json={"name": name, "uuid": name})
        assert answer.status_code == 201, answer.text
        return name

    with ThreadPoolExecutor() as pool:
        held = pool.submit(database.transact, slowly)
        try:
            assert is_held.wait(patience.LIMIT_S)
            others = [pool.submit(create, url) for url in deployment.urls]
            if has_number or database.is_sqlite:  # SQLite has one writer
                known = set(first.providers)
            else:
                known = {*first.providers, *(other.result() for other in others)}
            for url in deployment.urls:
                assert {row["uuid"] for row in deployment.picture(url)["resource_providers"]} == known
        finally:
            go_on.set()
        held.result()
        created = {other.result() for other in others}
    database.dispose()
    tables = Tables(deployment.engine)
    assert set(tables.providers) == {*first.providers, *created, late}
    assert tables.position == first.position + len(created) + 1
    check_pictures(deployment, tables)


def check_tables(hammered: hammer.Hammer, old: Tables, new: Tables) -> None:
    """What is used is what is allocated, no provider holds more than it has, no generation went back."""
    assert new.miscounted == []
    assert new.position >= old.position
    for provider, row in new.providers.items():
        assert row["generation"] >= old.providers.get(provider, row)["generation"]
    for provider in hammered.steady:  # the others shrink below what is used now and then
        inventory = new.providers[provider]["inventories"][hammer.CLASS]
        assert inventory["used"] <= inventory["total"] - inventory["reserved"] == hammer.CAPACITY


def check_pictures(deployment: Deployment, tables: Tables) -> None:
    """Each process believes what the tables say, row for row."""
    pids = set()
    for url in deployment.urls:
        picture = deployment.picture(url)
        pids.add(picture["pid"])
        assert picture["position"] == tables.position
        assert picture["resource_providers"] == list(tables.providers.values())
    assert len(pids) == len(deployment.urls)
