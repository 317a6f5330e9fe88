# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A fleet of simulated hosts on PostgreSQL and RabbitMQ.

How soon many servers of one call run and are gone again, and what agents that only report cost the database.

    .venv/bin/python benchmarks/fleet.py --hosts 1000 --servers 1000 --json fleet.json

Processes: accelsched-api (2 workers), two accelsched-schedulers, one accelsched-agent that stands for all the hosts.
For the cost of reporting each host speaks for itself, in calls of its own, as agents on as many machines would.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_TOP = Path(__file__).resolve().parents[1]
sys.path += [str(_TOP / "benchmarks"), str(_TOP / "tests" / "support"), str(_TOP / "tools")]

import brokers  # noqa: E402
import databases  # noqa: E402
import sqlalchemy  # noqa: E402
from deployments import Api, Service  # noqa: E402
from harness.servers import database_cpu_seconds  # noqa: E402
from stack import http  # noqa: E402

from accelsched import conf as options  # noqa: E402
from accelsched import rpc  # noqa: E402
from accelsched.db import migrations  # noqa: E402
from accelsched.db.engine import Database  # noqa: E402

C = "/compute/v2.1"
_LIMIT_S = 600.0
_CLIENTS = 8
# Nothing of a server may be left when it is gone, but for its own row and what was done to it.
_LEFT = {
    "servers": "SELECT count(*) FROM servers WHERE deleted_at IS NULL",
    "allocations": "SELECT count(*) FROM allocations",
    "consumers": "SELECT count(*) FROM consumers",
    "used": "SELECT coalesce(sum(used), 0) FROM inventories",
}


def main() -> int:
    """Measure, print and write; the status tells whether anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--servers", type=int, default=1000, help="of one create call")
    parser.add_argument("--report-seconds", type=float, default=60.0, help="how long reporting is watched")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="accelsched-fleet-") as directory,
        _deployment(Path(directory), arguments.hosts) as (api, url, transport_url),
    ):

        def report() -> dict[str, Any]:
            return _reporting(url, transport_url, arguments.hosts, arguments.report_seconds)

        figures = _servers(api, url, arguments.servers, report) | report()
    figures = {"hosts": arguments.hosts, "servers": arguments.servers, **figures}
    for name, value in figures.items():
        print(f"{name:32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if any(figures["left"].values()) or figures["errors"] else 0


@contextlib.contextmanager
def _deployment(directory: Path, hosts: int) -> Iterator[tuple[Api, str, str]]:
    """Give a deployment whose hosts are all there: HTTP to it, its database's URL and its broker's."""
    with databases.fresh("postgresql", directory) as url, brokers.fresh() as transport_url:
        db = Database(url)
        migrations.upgrade(db)
        db.dispose()
        port = http.free_port()
        settings: dict[str, dict[str, object]] = {
            "DEFAULT": {"transport_url": transport_url, "state_path": directory / "state"},
            "database": {"connection": url},
            "api": {
                "auth_strategy": "noauth2",
                "bind_port": port,
                "workers": 2,
                "max_servers_per_request": 100_000,
            },
            "agent": {"host": "sim", "virt_driver": "simulated", "device_drivers": "simulated", "build_threads": 16},
            "devices": {"simulated_gpus": "8"},
        }
        started: list[Service] = []
        try:
            for number, (command, *more) in enumerate(
                [
                    ("accelsched-scheduler",),
                    ("accelsched-scheduler",),
                    ("accelsched-api",),
                    ("accelsched-agent", "--simulate", str(hosts)),
                ]
            ):
                started.append(Service(command, directory / f"{number}", settings, list(more)))
            api = Api(f"http://127.0.0.1:{port}")
            _until(lambda: http.answers(f"{api.url}/healthcheck"))
            _until(lambda: len(api.get(f"{C}/os-services").json()["services"]) == hosts)
            flavor = {"name": "vgpu", "id": "vgpu", "vcpus": 1, "ram": 64, "disk": 1}
            api.post(f"{C}/flavors", json={"flavor": flavor}).raise_for_status()
            specs = {"extra_specs": {"resources:VGPU": "1"}}
            api.post(f"{C}/flavors/vgpu/os-extra_specs", json=specs).raise_for_status()
            yield api, url, transport_url
        finally:
            for service in reversed(started):
                service.stop()


def _servers(api: Api, url: str, count: int, report: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure one create call of many servers until they run, and their deletion until nothing is left of them.

    :param report: measures what reporting costs while they run
    """
    server = {"name": "s", "flavorRef": "vgpu", "networks": "none", "min_count": count, "max_count": count}
    quotas = dict.fromkeys(("instances", "cores", "ram"), -1)
    api.put(f"{C}/os-quota-sets/admin", json={"quota_set": quotas})
    before = database_cpu_seconds(url)
    started = time.monotonic()
    api.post(f"{C}/servers", json={"server": server}).raise_for_status()
    answered = time.monotonic() - started
    _until(lambda: not api.get(f"{C}/servers?status=BUILD&limit=1").json()["servers"])
    active = time.monotonic() - started
    errors = len(api.get(f"{C}/servers?status=ERROR&limit=1000").json()["servers"])
    ids: list[str] = []
    while page := api.get(f"{C}/servers?limit=1000" + (f"&marker={ids[-1]}" if ids else "")).json()["servers"]:
        ids += [one["id"] for one in page]
    used = database_cpu_seconds(url) - before
    reporting = report()
    before, deleted = database_cpu_seconds(url), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [Api(api.url) for _ in range(_CLIENTS)]
        for answer in pool.map(lambda one: clients[one[0] % _CLIENTS].delete(f"{C}/servers/{one[1]}"), enumerate(ids)):
            answer.raise_for_status()
    _until(lambda: not api.get(f"{C}/servers?limit=1").json()["servers"])
    gone = time.monotonic() - deleted
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        left = {name: int(connection.scalar(sqlalchemy.text(query)) or 0) for name, query in _LEFT.items()}
    engine.dispose()
    return {
        "answered_s": round(answered, 2),
        "active_s": round(active, 1),
        "gone_s": round(gone, 1),
        "errors": errors + count - len(ids),
        "left": left,
        "database_cpu_s": round(used + database_cpu_seconds(url) - before, 1),
        "with_servers": reporting,
    }


def _reporting(url: str, transport_url: str, hosts: int, seconds: float) -> dict[str, Any]:
    """Measure the part of a core that the database spends while hosts are alive and nothing happens."""
    conf = options.new()
    options.parse(conf, [], "fleet")
    conf.set_override("transport_url", transport_url)
    transport = rpc.transport(conf)
    controller = rpc.ControllerClient(transport)
    names = [f"sim-{number:04d}" for number in range(1, hosts + 1)]
    beats = conf.agent.report_interval / hosts
    every = round(conf.agent.sync_interval / conf.agent.report_interval)
    before, started, calls = database_cpu_seconds(url), time.monotonic(), 0
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
        while (now := time.monotonic() - started) < seconds:
            name = names[calls % hosts]
            pool.submit(controller.heartbeat, [name])
            if (calls // hosts) % every == 0:
                pool.submit(controller.fetch_assignments, [name], None)
            calls += 1
            time.sleep(max(calls * beats - now, 0))
    spent = time.monotonic() - started
    transport.cleanup()  # before the broker's virtual host goes
    return {
        "reporting_core_percent": round(100 * (database_cpu_seconds(url) - before) / spent, 1),
        "heartbeats_per_second": round(calls / spent, 1),
    }


def _until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_LIMIT_S:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
