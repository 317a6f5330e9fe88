# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The rows: what is asked, and of whom."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from accelsched.db import feed
from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet
from harness import client, fleet
from harness.measure import Figure, Row, figure_of, in_turn, percentile, progress
from harness.servers import Server, Shape

_ROOT = "resources=VCPU:4,MEMORY_MB:8192"
_ISOLATED = "&".join(f"resources{number}=PGPU:1" for number in range(1, 9)) + "&group_policy=isolate"


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure. Seconds, but for ``repeats``, ``rounds`` and ``load_hosts``."""

    repeats: int = 20
    budget_s: float = 40.0
    timeout_s: float = 30.0
    rounds: int = 3
    burst_s: float = 5.0
    clients: int = 16
    load_hosts: int = 300


@dataclasses.dataclass(frozen=True)
class Read:
    """A query that both answer."""

    title: str
    path: str
    target_ratio: float | None = None
    target_ms: float | None = None


READS: Mapping[str, Read] = {
    "candidates": Read("candidates: VCPU, MEMORY_MB, limit 100", f"/allocation_candidates?{_ROOT}&limit=100", 100, 10),
    "candidates-vgpu": Read(
        "candidates: and a VGPU with a trait, limit 100",
        f"/allocation_candidates?{_ROOT}&resources1=VGPU:1&required1={fleet.GPU_TRAITS[0]}&limit=100",
        100,
        15,
    ),
    "candidates-all": Read("candidates: every host", f"/allocation_candidates?{_ROOT}", 10),
    "providers": Read("GET resource_providers?resources=VGPU:1", "/resource_providers?resources=VGPU:1", 10),
    "candidates-isolate": Read(
        "candidates: eight isolated PGPU, limit 100", f"/allocation_candidates?{_ISOLATED}&limit=100", None, 30
    ),
}


def read(name: str, servers: Sequence[Server], effort: Effort) -> Row:
    """Measure one of :data:`READS`."""
    asked = READS[name]
    figures, bodies = in_turn(
        servers, asked.path, repeats=effort.repeats, budget_s=effort.budget_s, timeout_s=effort.timeout_s
    )
    row = Row(name, asked.title, figures, asked.target_ratio, asked.target_ms)
    row.extra["answers"] = {server: _count(body) for server, body in bodies.items()}
    row.extra["bytes"] = {server: len(body) for server, body in bodies.items()}
    return row


def _count(body: bytes) -> int:
    document = orjson.loads(body)
    return len(document.get("allocation_requests", document.get("resource_providers", ())))


def put(name: str, servers: Sequence[Server], hosts: int, effort: Effort, kind: str) -> Row:
    """Measure claims by many clients at once: PUT allocations of new consumers, each to another GPU.

    Every one of them fits, so that whatever is not 204 is the server's doing.
    """
    claims = {server.name: _claims(server, hosts) for server in servers}
    bursts: dict[str, list[client.Burst]] = {server.name: [] for server in servers}
    cpu = dict.fromkeys(bursts, 0.0)
    for turn in range(effort.rounds + 1):
        for server in servers:
            # Lanes share one iterator: who is quicker takes more. A few come first, for the workers to warm up on.
            some = claims[server.name] if turn else itertools.islice(claims[server.name], 2 * effort.clients)
            lanes: list[Iterator[bytes]] = [some] * effort.clients
            before = server.cpu_seconds()
            burst = client.drive(server.port, lanes, effort.burst_s)
            if turn:
                cpu[server.name] += server.cpu_seconds() - before
                bursts[server.name].append(burst)
                progress(f"  {server.name}: {burst.statuses[204] / burst.seconds:.0f}/s {dict(burst.statuses)}")
    row = Row(name, f"PUT allocations, {effort.clients} clients, {kind}", target_ratio=10 if name == "put" else None)
    for server in servers:
        row.figures[server.name] = _figure_of_bursts(bursts[server.name], cpu[server.name])
        samples = {status: body.decode() for burst in bursts[server.name] for status, body in burst.samples.items()}
        row.extra.setdefault("refusals", {})[server.name] = samples
    return row


def set_rules(server: Server, hosts: int) -> None:
    """Have the vGPUs of each GPU of the vGPU hosts share a budget in which all of them fit."""
    one = client.Client(server.port)
    rule = {"type": "budget", "budget": fleet.VGPUS, "costs": {"VGPU": 1}}
    body = orjson.dumps({"resource_provider_generation": 1, "capacity_rule": rule})
    for host, gpu in itertools.product(range(hosts), range(fleet.GPUS)):
        path = f"/v1/resource_providers/{fleet.gpu_uuid(host, gpu)}/capacity_rule"
        answer = one.ask(client.render("PUT", path, body), timeout=60.0)
        if answer.status != 200:
            raise RuntimeError(f"a rule is refused: {answer.status} {answer.body!r}")
    one.close()


def _claims(server: Server, hosts: int) -> Iterator[bytes]:
    for consumer in fleet.claims(hosts):
        body: dict[str, Any] = {
            "allocations": {uuid: {"resources": amounts} for uuid, amounts in consumer.allocations.items()},
            "project_id": fleet.PROJECT,
            "user_id": fleet.USER,
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }
        yield client.render("PUT", f"{server.prefix}/allocations/{consumer.uuid}", orjson.dumps(body))


def _figure_of_bursts(bursts: Sequence[client.Burst], cpu_seconds: float) -> Figure:
    """Throughput counts what was done; each round's own, so that one disturbed round does not decide."""
    seconds = [each for burst in bursts for each in burst.latencies]
    figure = figure_of(seconds, cpu_seconds)
    figure.rate = statistics.median(burst.statuses[204] / burst.seconds for burst in bursts)
    statuses = sum((burst.statuses for burst in bursts), start=bursts[0].statuses.__class__())
    if bad := {status: count for status, count in sorted(statuses.items()) if status != 204}:
        figure.note = ", ".join(f"{count / len(seconds):.1%} are {status}" for status, count in bad.items())
    return figure


def load(servers: Sequence[Server], hosts: int, effort: Effort) -> Row:
    """Measure the load of further hosts over HTTP: for each provider POST, PUT inventories, PUT traits.

    Many clients, each a host at a time; in turn a quarter of the hosts to each server. The rate is of providers.
    """
    row = Row("load", f"load over HTTP, {effort.clients} clients, providers", target_ratio=5)
    quarter = max(effort.clients, effort.load_hosts // 4)
    bursts: dict[str, list[client.Burst]] = {server.name: [] for server in servers}
    cpu = dict.fromkeys(bursts, 0.0)
    for turn in range(4):
        for server in servers:
            first = hosts + turn * quarter
            # Whoever has loaded a host takes the next one: nobody is left alone with the last few.
            numbers = iter(range(first, first + quarter))
            lanes = [_load(server, numbers) for _ in range(effort.clients)]
            before = server.cpu_seconds()
            burst = client.drive(server.port, lanes, effort.budget_s)
            cpu[server.name] += server.cpu_seconds() - before
            bursts[server.name].append(burst)
            if burst.samples:
                raise RuntimeError(f"{server.name} refuses a part of the fleet: {burst.samples}")
            progress(f"  {server.name}: {len(burst.latencies) / 3 / burst.seconds:.0f} providers/s")
    for server in servers:
        some = bursts[server.name]
        figure = figure_of([each for burst in some for each in burst.latencies], cpu[server.name])
        figure.rate = statistics.median(len(burst.latencies) / 3 / burst.seconds for burst in some)
        row.figures[server.name] = figure
    row.extra["hosts"] = quarter * 4
    return row


def _load(server: Server, numbers: Iterator[int]) -> Iterator[bytes]:
    for number in numbers:
        yield from _requests_of(server, number)


def _requests_of(server: Server, number: int) -> Iterator[bytes]:
    host = fleet.vgpu_host(number, in_use=False)
    for provider in (host.root, *host.devices):
        parent = None if provider is host.root else host.root.uuid
        body: dict[str, Any] = {"uuid": provider.uuid, "name": provider.name, "parent_provider_uuid": parent}
        yield client.render("POST", f"{server.prefix}/resource_providers", orjson.dumps(body))
        path = f"{server.prefix}/resource_providers/{provider.uuid}"
        inventories = {
            name: {
                "total": stock.total,
                "reserved": stock.reserved,
                "min_unit": 1,
                "max_unit": stock.total,
                "step_size": 1,
                "allocation_ratio": stock.allocation_ratio,
            }
            for name, stock in provider.inventories.items()
        }
        body = {"resource_provider_generation": 0, "inventories": inventories}
        yield client.render("PUT", f"{path}/inventories", orjson.dumps(body))
        body = {"resource_provider_generation": 1, "traits": list(provider.traits)}
        yield client.render("PUT", f"{path}/traits", orjson.dumps(body))


def start(servers: Sequence[Server], effort: Effort) -> Row:
    """Measure a lone worker: from the start of its process to its first candidates, and its memory then and later."""
    row = Row("start", "start of a worker, to its first candidates")
    for server in servers:
        server.stop()
        began = time.perf_counter()
        server.start(Shape(workers=1))
        one = client.Client(server.port)
        asked = client.render("GET", server.prefix + READS["candidates"].path)
        one.ask(asked, timeout=max(120.0, effort.timeout_s))
        took = time.perf_counter() - began
        first = server.memory_mib()[0]
        for name in ("candidates", "candidates-vgpu", "providers"):
            for _ in range(3):
                one.ask(client.render("GET", server.prefix + READS[name].path), timeout=120.0)
        one.close()
        row.figures[server.name] = Figure(
            median_ms=took * 1000,
            p95_ms=took * 1000,
            count=1,
            note=f"{first:.0f} MiB, after big answers {server.memory_mib()[0]:.0f}, "
            f"at most {server.memory_mib('VmHWM')[0]:.0f}",
        )
        server.stop()
        server.start()
    return row


def feed_row(url: str, changes: int) -> Row:
    """Measure how long a reader takes to catch up after so many providers changed, in this process, ours only."""
    db = Database(url)
    try:
        picture = Fleet(db)
        with picture.reading() as first:
            ids = list(first.slot_of_id)[:changes]
        seconds = []
        for _ in range(9):
            db.transact(lambda session: feed.touch(session, ids))
            began = time.perf_counter()
            with picture.reading():
                seconds.append(time.perf_counter() - began)
        figure = Figure(statistics.median(seconds) * 1000, percentile(seconds, 0.95) * 1000, count=len(seconds))
        return Row(f"feed-{changes}", f"catch up with {changes} changed providers", {"accelsched": figure})
    finally:
        db.dispose()
