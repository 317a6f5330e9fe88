# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Connections to the database that are lost under a request: nobody notices where it may be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
import sqlalchemy
from falcon import testing

from accelsched import conf as options
from accelsched.api import wsgi
from accelsched.db import migrations
from accelsched.db.engine import Database

HEADERS = {"X-Auth-Token": "admin", "OpenStack-API-Version": "placement 1.39"}


class Cutter:
    """Ends the session behind the next connection that is taken from a pool."""

    def __init__(self, url: str) -> None:
        self.armed = False
        self._other = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        self._is_postgresql = self._other.dialect.name == "postgresql"

    def __call__(self, dbapi_connection: Any, _record: object, _proxy: object) -> None:
        if not self.armed:
            return
        self.armed = False
        with dbapi_connection.cursor() as cursor:
            cursor.execute(f"SELECT {'pg_backend_pid' if self._is_postgresql else 'connection_id'}()")
            (number,) = cursor.fetchone()
        dbapi_connection.rollback()
        with self._other.connect() as connection:
            end = f"SELECT pg_terminate_backend({number})" if self._is_postgresql else f"KILL {number}"
            connection.exec_driver_sql(end)


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with databases.fresh(request.param, tmp_path) as url:
        database = Database(url)
        migrations.upgrade(database)
        database.dispose()
        yield url


@pytest.fixture
def cutter(url: str) -> Iterator[Cutter]:
    cutter = Cutter(url)
    yield cutter
    sqlalchemy.event.remove(sqlalchemy.pool.Pool, "checkout", cutter)


@pytest.fixture
def client(url: str, cutter: Cutter, tmp_path: Path) -> testing.TestClient:
    file = tmp_path / "accelsched.conf"
    file.write_text(
        f"[DEFAULT]\ntransport_url = fake://\n[api]\nauth_strategy = noauth2\n[database]\nconnection = {url}\n"
    )
    conf = options.new()
    options.parse(conf, ["--config-file", str(file)], "test")
    app = wsgi.create(conf)
    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "checkout", cutter)
    return testing.TestClient(app, headers=HEADERS)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/placement/resource_providers", 200),
        ("GET", "/placement/traits", 200),
        ("GET", "/placement/usages?project_id=p", 200),
        ("GET", "/placement/allocation_candidates?resources=VCPU:1", 200),
        ("GET", "/compute/v2.1/servers/detail", 200),
        ("GET", "/v1/picture", 200),
        ("PUT", "/placement/traits/CUSTOM_CUT", 201),
    ],
)
def test_a_request_whose_connection_is_lost_at_its_beginning_is_answered_all_the_same(
    client: testing.TestClient, cutter: Cutter, method: str, path: str, status: int
) -> None:
    cutter.armed = True
    answer = client.simulate_request(method, path)
    assert not cutter.armed, "no connection was taken"
    assert answer.status_code == status, answer.text
