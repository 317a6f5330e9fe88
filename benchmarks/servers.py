# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure lists of servers over HTTP on PostgreSQL, with as many servers as a large site has.

``python benchmarks/servers.py --servers 100000`` writes the servers by SQL, one project with 10 of them and another
with all the others, on 1,000 hosts, every fifth with a tag, as many again of an earlier time deleted; then it asks
accelsched-api behind gunicorn with two workers of eight threads, on loopback. The database is dropped afterwards.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
import requests
import sqlalchemy

_HERE = pathlib.Path(__file__).resolve().parent
# As a script its directory comes first; the tests' support has the databases.
sys.path += [str(_HERE.parent / "tests" / "support"), str(_HERE.parent / "tools")]

from harness import servers as harness  # noqa: E402

from accelsched.db.compute import Heartbeat, Host, Request, Server, ServerTag  # noqa: E402

SMALL, LARGE = "small", "large"
_SMALL_SERVERS = 10
_HOSTS = 1000
_BATCH = 5000
_FLAVOR = {
    **{"id": "vgpu", "name": "vgpu", "vcpus": 4, "ram_mb": 8192, "disk_gb": 20, "ephemeral_gb": 0, "swap_mb": 0},
    "extra_specs": {"resources:VGPU": "1"},
}
_DEVICES = [{"group": "", "provider_uuid": "p", "provider_name": "gpu", "resources": {"VGPU": 1}}]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures as JSON, return the exit status."""
    args = _arguments(argv)
    with (
        tempfile.TemporaryDirectory() as directory,
        harness.ours("postgresql", 1, pathlib.Path(directory)) as server,
    ):
        _fill(server.url, args.servers)
        server.start()
        try:
            told = {"machine": harness.machine(), "servers": args.servers, "rows": _measure(server, args)}
        finally:
            server.stop()
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2, default=str).decode())
    if args.json:
        args.json.write_bytes(orjson.dumps(told, default=str))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=int, default=100_000, help="servers that are not deleted")
    parser.add_argument("--repeats", type=int, default=30, help="requests of each kind")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured to FILE")
    return parser.parse_args(argv)


def _fill(url: str, servers: int) -> None:
    """Write hosts, and servers in requests of a hundred."""
    engine = sqlalchemy.create_engine(url)
    start = datetime.datetime(2026, 1, 1)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.insert(Host), [_host(number, start) for number in range(_HOSTS)])
        beats = sqlalchemy.select(Host.id, Host.created_at)
        connection.execute(sqlalchemy.insert(Heartbeat).from_select(["host_id", "seen_at"], beats))
        request_ids = {}
        for project in (SMALL, LARGE):
            made = {"project_id": project, "user_id": "u", "spec": {}, "count": 1, "min_count": 1, "state": "done"}
            rows = [{**made, "uuid": f"r-{project}-{n}", "created_at": start} for n in range(servers // 50 + 1)]
            connection.execute(sqlalchemy.insert(Request), rows)
            found = connection.scalars(sqlalchemy.select(Request.id).where(Request.project_id == project))
            request_ids[project] = found.all()
        for begin in range(0, 2 * servers, _BATCH):
            numbers = range(begin, min(begin + _BATCH, 2 * servers))
            rows = [_server(number, servers, request_ids, start) for number in numbers]
            connection.execute(sqlalchemy.insert(Server), rows)
        tagged = sqlalchemy.select(Server.id, sqlalchemy.literal("a-tag")).where(Server.id % 5 == 0)
        connection.execute(sqlalchemy.insert(ServerTag).from_select(["server_id", "tag"], tagged))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    engine.dispose()


def _host(number: int, start: datetime.datetime) -> dict[str, Any]:
    return {
        **{"name": f"bench-{number}", "service_uuid": str(uuid.uuid4()), "node_uuid": str(uuid.uuid4()), "agent": "a"},
        **{"hypervisor": {"hostname": f"bench-{number}"}, "report_digest": "", "reported": {}, "created_at": start},
    }


def _server(number: int, servers: int, request_ids: dict[str, Any], start: datetime.datetime) -> dict[str, Any]:
    # Numbers below ``servers`` are of an earlier time and deleted; the small project's are spread over the others.
    there = number >= servers
    project = SMALL if there and (number - servers) % (servers // _SMALL_SERVERS) == 0 else LARGE
    ids, when = request_ids[project], start + datetime.timedelta(seconds=number)
    return {
        **{"uuid": str(uuid.uuid4()), "request_id": ids[number // 100 % len(ids)], "project_id": project},
        **{"user_id": "u", "name": f"server-{number}", "hostname": f"server-{number}", "metadata_": {"role": "bench"}},
        **{
            "flavor": _FLAVOR,
            "image": None,
            "devices": _DEVICES,
            "state": "active",
            "host": f"bench-{number % _HOSTS}",
        },
        **{"created_at": when, "updated_at": when, "launched_at": when, "deleted_at": None if there else when},
    }


def _measure(server: harness.Server, args: argparse.Namespace) -> list[dict[str, Any]]:
    small, large = ({"X-Auth-Token": f"u:{project}", "X-Roles": "member,reader"} for project in (SMALL, LARGE))
    admin = {"X-Auth-Token": "admin"}
    kinds = [
        ("a project's 10, brief", small, "/servers"),
        ("a project's 10, in full", small, "/servers/detail"),
        ("a page of 1,000, brief", large, "/servers?limit=1000"),
        ("a page of 1,000, in full", large, "/servers/detail?limit=1000"),
        ("a page of 1,000 of everybody, in full", admin, "/servers/detail?limit=1000&all_tenants=1"),
        ("a page of 1,000 with a tag, in full", large, "/servers/detail?limit=1000&tags=a-tag"),
    ]
    rows = []
    with requests.Session() as session:
        session.headers.update({"OpenStack-API-Version": "compute 2.96"})
        for name, headers, path in kinds:
            rows.append({"name": name, **_ask(server, session, headers, path, args.repeats)})
        page = session.get(_url(server, "/servers?limit=1000"), headers=large, timeout=60).json()
        path = f"/servers/detail?limit=1000&marker={page['servers'][-1]['id']}"
        rows.append({"name": "the page after it, in full", **_ask(server, session, large, path, args.repeats)})
    return rows


def _url(server: harness.Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}/compute/v2.1{path}"


def _ask(
    server: harness.Server, session: requests.Session, headers: dict[str, str], path: str, repeats: int
) -> dict[str, Any]:
    """Ask the same again and again; the first two, which warm up, do not count."""
    times, shown, cpu = [], 0, 0.0
    for number in range(repeats + 2):
        if number == 2:
            cpu = server.cpu_seconds()
        begun = time.perf_counter()
        answer = session.get(_url(server, path), headers=headers, timeout=60)
        took = time.perf_counter() - begun
        answer.raise_for_status()
        shown = len(answer.json()["servers"])
        if number >= 2:
            times.append(took * 1000)
    return {
        "servers": shown,
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(sorted(times)[int(len(times) * 0.95)], 1),
        "cpu_ms": round((server.cpu_seconds() - cpu) * 1000 / repeats, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
