# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure our Placement API beside OpenStack's own, on the same machine, at the same fleet, in turn.

``python benchmarks/placement.py --hosts 1000 10000 --json FILE`` measures every row; ``--rows candidates put`` only
these. Both servers run behind gunicorn with two workers of eight threads, each on a PostgreSQL database of its own
(SQLite for its row), on loopback; both databases are dropped afterwards. The fleet (``harness/fleet.py``) is put into
each server's own tables by SQL; the row ``load`` adds further hosts over HTTP.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import signal
import sys
import tempfile
from collections.abc import Sequence

import orjson

_HERE = pathlib.Path(__file__).resolve().parent
# As a script its directory comes first; the tests' support has the peer and the databases.
sys.path += [str(_HERE.parent / "tests" / "support"), str(_HERE.parent / "tools")]

from harness import report, rows, servers  # noqa: E402
from harness.measure import Row, progress  # noqa: E402
from harness.rows import Effort  # noqa: E402

_ON_POSTGRESQL = (*rows.READS, "start", "feed", "put", "load")
_ON_SQLITE = ("put-sqlite",)
_RULED = ("put-ruled",)  # ours alone: Placement has no capacity rules
ROWS = (*_ON_POSTGRESQL, *_RULED, *_ON_SQLITE)
_FEED_CHANGES = (1, 10, 100, 1000)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, return the exit status."""
    args = _arguments(argv)
    # A killed benchmark leaves no server and no database either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    effort = Effort(
        repeats=args.repeats,
        budget_s=args.budget,
        timeout_s=args.timeout,
        rounds=args.rounds,
        burst_s=args.burst,
        clients=args.clients,
        load_hosts=args.load_hosts,
    )
    about = {"machine": servers.machine(), "arguments": vars(args), "fleets": []}
    for hosts in args.hosts:
        measured = _measure(hosts, args.rows, args.only, effort)
        about["fleets"].append(report.document(measured, {"hosts": hosts}))
        print(f"\n{hosts} hosts ({_whole(hosts)} more with 8 PGPU), load average {servers.machine()['load_average']}\n")
        print(report.table(measured), flush=True)
        if args.json:
            args.json.write_bytes(
                orjson.dumps(about, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str)
            )
    return 0


def _whole(hosts: int) -> int:
    from harness import fleet

    return fleet.whole_gpu_hosts(hosts)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1000, 10000], help="sizes of fleet")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="what to measure; all by default")
    parser.add_argument("--only", choices=("accelsched", "placement"), help="one server alone")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--repeats", type=int, default=Effort.repeats, help="requests of a read, each server")
    parser.add_argument("--budget", type=float, default=Effort.budget_s, help="seconds for a row of reads")
    parser.add_argument("--timeout", type=float, default=Effort.timeout_s, help="seconds for one answer")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="bursts of PUTs, each server")
    parser.add_argument("--burst", type=float, default=Effort.burst_s, help="seconds of a burst")
    parser.add_argument("--clients", type=int, default=Effort.clients, help="clients that PUT or load at once")
    parser.add_argument("--load-hosts", type=int, default=Effort.load_hosts, help="hosts loaded over HTTP")
    return parser.parse_args(argv)


def _measure(hosts: int, wanted: Sequence[str], only: str | None, effort: Effort) -> list[Row]:
    measured: list[Row] = []
    for kind, names in (("postgresql", _ON_POSTGRESQL), ("postgresql", _RULED), ("sqlite", _ON_SQLITE)):
        chosen = [name for name in names if name in wanted]
        if names is _RULED:
            if only != "placement" and chosen:
                measured += _measure_on(kind, hosts, chosen, "accelsched", effort)
        elif chosen:
            measured += _measure_on(kind, hosts, chosen, only, effort)
    return measured


def _measure_on(kind: str, hosts: int, chosen: Sequence[str], only: str | None, effort: Effort) -> list[Row]:
    measured: list[Row] = []
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="accelsched-benchmark-")))
        running: list[servers.Server] = []
        for name, make in (("accelsched", servers.ours), ("placement", servers.placement)):
            if only in (None, name):
                progress(f"{hosts} hosts into the tables of {name} ({kind})")
                running.append(stack.enter_context(make(kind, hosts, directory / name)))
        for server in running:
            server.start()
        for name in chosen:
            progress(name)
            if name in rows.READS:
                measured.append(rows.read(name, running, effort))
            elif name == "start":
                measured.append(rows.start(running, effort))
            elif name == "feed":
                urls = [server.url for server in running if server.name == "accelsched"]
                measured += [rows.feed_row(url, changes) for url in urls for changes in _FEED_CHANGES]
            elif name == "load":
                measured.append(rows.load(running, hosts, effort))
            else:
                if name in _RULED:
                    rows.set_rules(running[0], hosts)
                label = "SQLite" if kind == "sqlite" else "PostgreSQL"
                label += ", GPUs with a rule" if name in _RULED else ""
                measured.append(rows.put(name, running, hosts, effort, label))
    return measured


if __name__ == "__main__":
    sys.exit(main())
