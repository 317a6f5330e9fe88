# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure packing: replay traces with ``accelsched-simulate``, have a checker judge the decisions, print the table.

``python benchmarks/packing.py TRACES --work DIR --seeds 42 43 --json FILE``. TRACES holds ``nodes.csv``, pod lists
``pods_NAME.csv``, ``arrivals.py PODS --seed S`` that prints arrivals, and ``replay.py NODES ARRIVALS DECISIONS`` that
checks decisions independently of this project and prints ``allocation_percent_at_load``, ``refused`` and
``violation_count`` as JSON. A run that is in ``--work`` already is not done again, so a table may be made in several
sittings.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

POLICIES = ("fgd", "planned")
LOADS = ("95", "100")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table, return 1 when the checker found a violation."""
    args = _arguments(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    runs = {case: _judged(args, *case) for case in _cases(args)}
    table = list(_table(args, runs))
    for line in table:
        print(*(f"{value:>14}" for value in line.values()))
    if args.json:
        args.json.write_bytes(orjson.dumps(table, option=orjson.OPT_INDENT_2))
    return int(any(run["violation_count"] for run in runs.values()))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("traces", type=pathlib.Path, help="nodes.csv, pods_*.csv, arrivals.py, replay.py")
    parser.add_argument("--names", nargs="+", help="of pod lists; all of them when left out")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="of arrivals, and of the order of hosts")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), help="of accelsched-simulate")
    parser.add_argument("--work", type=pathlib.Path, required=True, metavar="DIR", help="where results are kept")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table to FILE")
    return parser.parse_args(argv)


def _cases(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    names = args.names or sorted(path.stem.removeprefix("pods_") for path in args.traces.glob("pods_*.csv"))
    for seed in args.seeds:
        for name in names:
            for policy in args.policies:
                yield name, policy, seed


def _judged(args: argparse.Namespace, name: str, policy: str, seed: int) -> dict[str, Any]:
    kept = args.work / f"{name}-{policy}-{seed}.json"
    if not kept.exists():
        pods, nodes = args.traces / f"pods_{name}.csv", args.traces / "nodes.csv"
        arrivals, decisions = args.work / "arrivals.csv", args.work / "decisions.jsonl"
        arrivals.write_bytes(_run(sys.executable, args.traces / "arrivals.py", pods, "--seed", seed))
        program = pathlib.Path(sys.executable).parent / "accelsched-simulate"
        started = time.monotonic()
        _run(
            *(program, "--nodes", nodes, "--arrivals", arrivals, "--history", pods, "--policy", policy),
            *("--seed", seed, "--decisions", decisions, "--summary", args.work / "summary.json"),
        )
        seconds = round(time.monotonic() - started, 1)
        judged = orjson.loads(_run(sys.executable, args.traces / "replay.py", nodes, arrivals, decisions, judge=True))
        kept.write_bytes(orjson.dumps({**judged, "seconds": seconds}))
        print(name, policy, seed, judged["allocation_percent_at_load"], f"{seconds} s", file=sys.stderr, flush=True)
    told: dict[str, Any] = orjson.loads(kept.read_bytes())
    return told


def _run(*command: object, judge: bool = False) -> bytes:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=False)
    # The checker ends with 1 when it found a violation, and says which.
    if done.returncode and not (judge and done.returncode == 1):
        raise SystemExit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def _table(args: argparse.Namespace, runs: dict[tuple[str, str, int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name in sorted({name for name, _, _ in runs}):
        for policy in args.policies:
            some = [run for (n, p, _), run in runs.items() if (n, p) == (name, policy)]
            means = {
                f"at_{load}": round(statistics.mean(run["allocation_percent_at_load"][load] for run in some), 2)
                for load in LOADS
            }
            at_100 = [run["allocation_percent_at_load"]["100"] for run in some]
            yield {
                "trace": name,
                "policy": policy,
                "seeds": len(some),
                **means,
                "least_100": round(min(at_100), 2),
                "most_100": round(max(at_100), 2),
                "violations": sum(run["violation_count"] for run in some),
            }


if __name__ == "__main__":
    sys.exit(main())
