# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Connections to the database that are lost under a request: nobody notices where it may be repeated."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
import sqlalchemy
from falcon import testing

from accelsched import conf as options
from accelsched.api import wsgi

pytestmark = pytest.mark.every_database

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
def url(request: pytest.FixtureRequest, templates: databases.Templates, tmp_path: Path) -> Iterator[str]:
    with templates.url(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def cutter(url: str) -> Iterator[Cutter]:
    cutter = Cutter(url)
    yield cutter
    sqlalchemy.event.remove(sqlalchemy.pool.Pool, "checkout", cutter)


@pytest.fixture
def client(url: str, cutter: Cutter, tmp_path: Path) -> testing.TestClient:
    client = _client(url, tmp_path)
    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "checkout", cutter)
    return client


def _client(url: str, tmp_path: Path) -> testing.TestClient:
    file = tmp_path / "accelsched.conf"
    file.write_text(
        f"[DEFAULT]\ntransport_url = fake://\n[api]\nauth_strategy = noauth2\n[database]\nconnection = {url}\n"
    )
    conf = options.new()
    options.parse(conf, ["--config-file", str(file)], "test")
    return testing.TestClient(wsgi.create(conf), headers=HEADERS)


# As psycopg2 and PyMySQL say it; that a transaction is READ COMMITTED is something else.
_COMMITS = (b"COMMIT\0", b"\3COMMIT")


class Wire:
    """Between the service and its database; cuts the connection on which the next COMMIT is sent."""

    def __init__(self, url: str) -> None:
        self.cuts = ""  # "before" the database hears of the commit, or "after" it has answered
        there = sqlalchemy.make_url(url)
        self._database = (str(there.host), there.port or {"postgresql": 5432}.get(there.get_backend_name(), 3306))
        self._listener = socket.create_server(("127.0.0.1", 0))
        through = there.set(host="127.0.0.1", port=self._listener.getsockname()[1])
        if there.get_backend_name() == "postgresql":
            through = through.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
        self.url = through.render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._database) as database:
            while True:
                readable, _, _ = select.select([client, database], [], [])
                said = readable[0].recv(1 << 16)
                if not said:
                    return
                if self.cuts and readable[0] is client and said.endswith(_COMMITS):
                    if self.cuts == "after":
                        database.sendall(said)
                        database.recv(1 << 16)
                    self.cuts = ""
                    return
                (database if readable[0] is client else client).sendall(said)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_create_call_whose_commit_is_lost_says_that_nobody_knows_and_where_to_look(
    url: str, tmp_path: Path, cut: str
) -> None:
    wire = Wire(url)
    with contextlib.closing(wire):
        client = _client(wire.url, tmp_path)
        flavor = {"name": "f", "id": "f", "vcpus": 1, "ram": 64, "disk": 0}
        assert client.simulate_post("/compute/v2.1/flavors", json={"flavor": flavor}).status_code == 200
        server = {"name": "s", "flavorRef": "f", "imageRef": "", "networks": "none"}
        compute = {"OpenStack-API-Version": "compute 2.90"}
        wire.cuts = cut
        answer = client.simulate_post("/compute/v2.1/servers", json={"server": server}, headers=compute)
        assert not wire.cuts, "nothing was committed"
        assert answer.status_code == 503, answer.text
        assert "whether the servers were made is not known" in answer.text
        (look,) = re.findall(r"GET (/servers\?reservation_id=\S+) ", answer.text)
        listed = client.simulate_get(f"/compute/v2.1{look}", headers=compute).json["servers"]
        assert [one["name"] for one in listed] == (["s"] if cut == "after" else [])


def test_another_call_whose_commit_is_lost_says_that_nobody_knows(url: str, tmp_path: Path) -> None:
    wire = Wire(url)
    with contextlib.closing(wire):
        client = _client(wire.url, tmp_path)
        wire.cuts = "after"
        flavor = {"name": "f", "id": "f", "vcpus": 1, "ram": 64, "disk": 0}
        answer = client.simulate_post("/compute/v2.1/flavors", json={"flavor": flavor})
        assert answer.status_code == 503, answer.text
        assert "whether this was done is not known" in answer.text
        assert client.simulate_get("/compute/v2.1/flavors/f").status_code == 200


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
