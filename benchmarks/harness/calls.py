# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Create calls until their claims are durable: the API, schedulers and agents' hosts over PostgreSQL and RabbitMQ."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import brokers
import orjson
import sqlalchemy

from accelsched.db.base import utcnow
from accelsched.db.compute import Flavor, Heartbeat, Host
from accelsched.db.engine import Database
from harness import client, fleet, servers
from harness.servers import Server, Shape

_VERSION = "compute 2.96"
_LOOK_S = 0.01
_LIMIT_S = 120.0
FLAVORS = 10
"""Kinds of servers: each asks for a vGPU, and for as many processors as its number says."""


class Deployment:
    """An API server and schedulers over one database with a fleet, whose hosts have reported."""

    def __init__(self, api: Server, schedulers: Sequence[subprocess.Popen[bytes]]) -> None:
        self._api = api
        self._schedulers = schedulers
        self._engine = sqlalchemy.create_engine(api.url)

    def call(self, count: int, flavor: int = 1) -> None:
        """Ask for servers alike, all or none."""
        server = {
            "name": "s",
            "flavorRef": f"f{flavor}",
            "networks": "none",
            "min_count": count,
            "max_count": count,
        }
        connection = client.Client(self._api.port)
        body = orjson.dumps({"server": server})
        answer = connection.ask(client.render("POST", "/compute/v2.1/servers", body, _VERSION))
        connection.close()
        if answer.status != 202:
            raise SystemExit(f"POST /servers: {answer.status} {answer.body!r}")

    def calls(self, number: int, count: int, at_once: int = 4) -> None:
        """Ask many times for ``count`` servers alike, the flavors in turn, some calls at the same time."""
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda index: self.call(count, 1 + index % FLAVORS), range(number)))

    def wait(self, placed: int) -> None:
        """Wait until as many servers have what they asked for, committed; their host is written with their claim."""
        query = "SELECT count(*), count(host), count(fault) FROM servers"
        deadline = time.monotonic() + _LIMIT_S
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while True:
                _, done, failed = connection.exec_driver_sql(query).one()
                if done == placed:
                    return
                if failed or time.monotonic() > deadline:
                    raise SystemExit(f"{done} of {placed} servers were placed, {failed} failed")
                time.sleep(_LOOK_S)

    def check(self, placed: int) -> None:
        """Check that each server holds what it asked for, once, and nothing is given twice.

        :raises SystemExit: saying what is wrong
        """
        with self._engine.connect() as connection:
            for wrong, query in _WRONG.items():
                if count := connection.exec_driver_sql(query).scalar_one():
                    raise SystemExit(f"{count} {wrong}")
            got = connection.exec_driver_sql(_WHOLE).scalar_one()
        if got != placed:
            raise SystemExit(f"{got} of {placed} servers hold a vGPU and what they asked of their host")

    def processor_seconds(self) -> float:
        """Return what the API, the schedulers and PostgreSQL on their behalf have used of processors."""
        return self._api.cpu_seconds() + sum(servers.cpu_seconds(process.pid) for process in self._schedulers)

    def lost(self) -> int:
        """Return how many times a request was decided about again, because some of its servers lost a race."""
        query = "SELECT count(*) - count(DISTINCT request_id) FROM decisions"
        with self._engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def dispose(self) -> None:
        """Close what is open."""
        self._engine.dispose()


_CAPACITY = "floor((i.total - i.reserved) * i.allocation_ratio)"
_WRONG = {
    "inventories have more in use than there is": f"SELECT count(*) FROM inventories i WHERE i.used > {_CAPACITY}",
    "inventories do not have in use what is allocated": """
        SELECT count(*) FROM inventories i LEFT JOIN (
            SELECT provider_id, class_id, sum(used) AS used FROM allocations GROUP BY provider_id, class_id
        ) a USING (provider_id, class_id) WHERE i.used <> coalesce(a.used, 0)""",
    "servers have devices that are not allocated to them": """
        SELECT count(*) FROM servers s CROSS JOIN json_array_elements(s.devices) d
        CROSS JOIN json_each_text(d -> 'resources') r WHERE NOT EXISTS (
            SELECT 1 FROM allocations a JOIN consumers c ON c.id = a.consumer_id
            JOIN resource_providers p ON p.id = a.provider_id JOIN resource_classes k ON k.id = a.class_id
            WHERE c.uuid = s.uuid AND p.uuid = d ->> 'provider_uuid' AND k.name = r.key AND a.used = r.value::int)""",
}
_WHOLE = """
    SELECT count(*) FROM servers s JOIN consumers c ON c.uuid = s.uuid WHERE (
        SELECT string_agg(k.name || a.used, ',' ORDER BY k.name)
        FROM allocations a JOIN resource_classes k ON k.id = a.class_id WHERE a.consumer_id = c.id
    ) = 'DISK_GB1,MEMORY_MB1024,VCPU' || (s.flavor ->> 'vcpus') || ',VGPU1'"""


@contextlib.contextmanager
def deployment(hosts: int, schedulers: int, directory: pathlib.Path) -> Iterator[Deployment]:
    """Start an API of two workers and some schedulers over a fleet of vGPU hosts (:mod:`harness.fleet`)."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(brokers.fresh())
        api = stack.enter_context(servers.ours("postgresql", hosts, directory, transport=broker))
        _host_rows(api.url, hosts)
        api.start(Shape())
        running = [_scheduler(directory) for _ in range(schedulers)]
        stack.callback(_stop, running)
        made = Deployment(api, running)
        stack.callback(made.dispose)
        yield made


def measure(hosts: int, schedulers: int, calls: int, count: int) -> dict[str, Any]:
    """Measure some calls for ``count`` servers each, after some for one server that warm everything up.

    :returns: seconds until the last call is answered, until the last claim is durable, of processors; servers a second
    """
    with (
        tempfile.TemporaryDirectory(prefix="accelsched-benchmark-") as scratch,
        deployment(hosts, schedulers, pathlib.Path(scratch)) as tried,
    ):
        # One at a time: they go round, and each scheduler gets some.
        for number in range(2 * schedulers):
            tried.call(1)
            tried.wait(number + 1)
        used, began = tried.processor_seconds(), time.perf_counter()
        tried.calls(calls, count)
        answered = time.perf_counter() - began
        tried.wait(calls * count + 2 * schedulers)
        durable, used = time.perf_counter() - began, tried.processor_seconds() - used
        again = tried.lost()
        tried.check(calls * count + 2 * schedulers)
    return {
        "hosts": hosts,
        "schedulers": schedulers,
        "calls": calls,
        "servers_a_call": count,
        "answered_seconds": round(answered, 3),
        "durable_seconds": round(durable, 3),
        "servers_per_second": round(calls * count / durable, 1),
        "processor_seconds": round(used, 2),
        "decided_again": again,
    }


def _host_rows(url: str, hosts: int) -> None:
    """Say that the hosts' agents have reported them, and will be heard of all the time; make the flavors."""
    db = Database(url)
    seen = utcnow() + datetime.timedelta(days=1)

    def write(session: Any) -> None:
        for number in range(hosts):
            root = fleet.vgpu_host(number).root
            row = Host(name=root.name, service_uuid=str(uuid.uuid4()), node_uuid=root.uuid, agent="agent")
            row.hypervisor, row.report_digest, row.reported = {"type": "QEMU"}, "", {}
            session.add(row)
        session.flush()
        beats = sqlalchemy.select(Host.id, sqlalchemy.literal(seen))
        session.execute(sqlalchemy.insert(Heartbeat).from_select(["host_id", "seen_at"], beats))
        for number in range(1, FLAVORS + 1):
            name = f"f{number}"
            sizes = {"vcpus": number, "ram_mb": 1024, "disk_gb": 1}
            session.add(Flavor(flavorid=name, name=name, extra_specs={"resources:VGPU": "1"}, **sizes))

    db.transact(write)
    db.dispose()


def _scheduler(directory: pathlib.Path) -> subprocess.Popen[bytes]:
    program = pathlib.Path(sys.executable).parent / "accelsched-scheduler"
    with (directory / "schedulers.log").open("ab") as log:
        return subprocess.Popen(
            [program, "--config-file", directory / "accelsched.conf"], stdout=log, stderr=subprocess.STDOUT
        )


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        process.wait()
