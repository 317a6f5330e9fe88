# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a row of the table is, and how numbers are taken: in turn, A B A B, within a bounded time."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from harness import client
from harness.servers import Server


@dataclasses.dataclass
class Figure:
    """What one server did: times in milliseconds, ``cpu_ms`` of workers and database a request, ``rate`` a second."""

    median_ms: float | None = None
    p95_ms: float | None = None
    cpu_ms: float | None = None
    rate: float | None = None
    count: int = 0
    note: str = ""


@dataclasses.dataclass
class Row:
    """One line of the table."""

    name: str
    title: str
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    target_ratio: float | None = None
    target_ms: float | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is; by throughput where that was measured."""
        ours, theirs = self.figures.get("accelsched"), self.figures.get("placement")
        if ours is None or theirs is None:
            return None
        if ours.rate is not None and theirs.rate is not None:
            return ours.rate / theirs.rate if theirs.rate else None
        if ours.median_ms is None or theirs.median_ms is None:
            return None
        return theirs.median_ms / ours.median_ms


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figure_of(seconds: Sequence[float], cpu_seconds: float) -> Figure:
    """Return the figure of requests that took so long each."""
    if not seconds:
        return Figure(note="no answer")
    return Figure(
        median_ms=statistics.median(seconds) * 1000,
        p95_ms=percentile(seconds, 0.95) * 1000,
        cpu_ms=cpu_seconds / len(seconds) * 1000,
        count=len(seconds),
    )


def in_turn(
    servers: Sequence[Server], path: str, *, repeats: int, budget_s: float, timeout_s: float
) -> tuple[dict[str, Figure], dict[str, bytes]]:
    """Ask the servers the same, one after the other, again and again.

    A first round is not counted. Each worker has its own caches and connections are given to either, so it is asked
    over four connections.

    :param repeats: at most so many counted requests a server
    :param budget_s: no further round begins after so many seconds, once there were three
    :param timeout_s: a server that takes longer for one answer is killed, started anew and not asked again
    :returns: figures and the last answers, by server
    """
    figures: dict[str, Figure] = {}
    bodies: dict[str, bytes] = {}
    clients = {server.name: [client.Client(server.port) for _ in range(4)] for server in servers}
    taken: dict[str, list[float]] = {server.name: [] for server in servers}
    cpu: dict[str, float] = {}
    asked = {server.name: client.render("GET", server.prefix + path) for server in servers}

    def ask(server: Server, turn: int) -> float | None:
        one = clients[server.name][turn % 4]
        try:
            answer = one.ask(asked[server.name], timeout=timeout_s)
        except (TimeoutError, ConnectionError) as exc:
            what = f"no answer in {timeout_s:.0f} s" if isinstance(exc, TimeoutError) else f"died: {exc}"
            figures[server.name] = Figure(note=what)
            server.restart()
            return None
        if answer.status != 200:
            raise RuntimeError(f"{server.name} answers {answer.status} to {path}: {answer.body[:500]!r}")
        bodies[server.name] = answer.body
        return answer.seconds

    for server in servers:
        for turn in range(4):
            if server.name in figures:
                break
            took = ask(server, turn)
            if took is not None and took > budget_s / 4:
                break
    for server in servers:
        cpu[server.name] = server.cpu_seconds()
    began = time.monotonic()
    for turn in range(repeats):
        if turn >= 3 and time.monotonic() - began > budget_s:
            break
        for server in servers:
            if server.name not in figures and (took := ask(server, turn)) is not None:
                taken[server.name].append(took)
    for server in servers:
        for one in clients[server.name]:
            one.close()
        if server.name not in figures:
            figures[server.name] = figure_of(taken[server.name], server.cpu_seconds() - cpu[server.name])
    return figures, bodies
