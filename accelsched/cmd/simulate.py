# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-simulate``: replay requests on a fleet through the scheduler's pipeline, for capacity planning.

Needs no database, no messages and no agents.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import orjson
from oslo_config import cfg
from tqdm import tqdm

from accelsched import errors
from accelsched.cmd import process
from accelsched.scheduler import plugins
from accelsched.simulation import plots, policies, trace
from accelsched.simulation.replay import Decision, Replay

PROG = "accelsched-simulate"

_OPTIONS = [
    cfg.StrOpt("nodes", required=True, metavar="CSV", help="The hosts: sn, cpu_milli, memory_mib, gpu, model."),
    cfg.StrOpt(
        "arrivals",
        required=True,
        metavar="CSV",
        help="The requests, in order: name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec.",
    ),
    cfg.StrOpt("history", metavar="CSV", help="Requests seen before, to learn from which to expect; as --arrivals."),
    cfg.StrOpt(
        "policy",
        default=policies.DEFAULT,
        metavar="NAME",
        help=f"A named set of weighers: {', '.join(sorted(policies.POLICIES))}.",
    ),
    cfg.IntOpt("seed", default=0, min=0, metavar="N", help="Fixes the order of hosts that score the same."),
    cfg.StrOpt("decisions", metavar="JSONL", help="Where to write one line for each request."),
    cfg.StrOpt("summary", metavar="JSON", help="Where to write the summary; standard output when left out."),
    cfg.StrOpt("plot", metavar="FILE", help="Draw allocation and fragmentation over time: .png or .svg."),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Replay; return the exit status: 0, or 2 when an option or a file is wrong."""
    example = f"{PROG} --nodes nodes.csv --arrivals arrivals.csv --decisions out.jsonl --summary out.json"
    try:
        conf = process.read_options(PROG, argv, example=example, extra=_OPTIONS, prepare=_choose)
        with _own_output() as output:
            _simulate(conf, output)
    except cfg.RequiredOptError as exc:
        return process.fail(PROG, f"--{exc.opt_name} is required; see --help")
    except (errors.ConfigurationError, errors.InvalidError) as exc:
        return process.fail(PROG, str(exc))
    except OSError as exc:
        return process.fail(PROG, f"{exc.filename}: {exc.strerror}")
    return 0


@contextlib.contextmanager
def _own_output() -> Iterator[TextIO]:
    """Keep standard output for the summary: HiGHS greets there, from below Python, and that goes to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            yield output
            output.flush()
        finally:
            os.dup2(output.fileno(), sys.stdout.fileno())


def _choose(conf: cfg.ConfigOpts) -> None:
    if conf.policy not in policies.POLICIES:
        known = ", ".join(sorted(policies.POLICIES))
        raise errors.ConfigurationError(f"--policy: {conf.policy} is none of {known}")
    weighers = policies.POLICIES[conf.policy].weighers
    if weighers is not None:
        conf.set_override("weighers", list(weighers), group="scheduler")


def _simulate(conf: cfg.ConfigOpts, output: TextIO) -> None:
    if conf.plot:
        plots.check(Path(conf.plot))
    nodes = trace.read_nodes(Path(conf.nodes))
    pods = trace.read_pods(Path(conf.arrivals))
    history = trace.read_pods(Path(conf.history)) if conf.history else []
    replay = Replay(nodes, history, plugins.load(conf), conf.seed, planned=policies.POLICIES[conf.policy].planned)
    gc.freeze()  # the fleet stays, and the garbage collector need not look through it again and again
    lines: list[bytes] = []
    with tqdm(total=len(pods), unit="request", disable=None, leave=False) as bar:

        def each(decision: Decision) -> None:
            lines.append(orjson.dumps(decision.to_dict()))
            bar.update()

        summary = {"policy": conf.policy, "seed": conf.seed, **replay.run(pods, each)}
    if conf.decisions:
        Path(conf.decisions).write_bytes(b"".join(line + b"\n" for line in lines))
    _tell(conf, summary, output)
    if conf.plot:
        plots.draw(replay.points, Path(conf.plot), title=f"{conf.policy}, {len(nodes)} hosts")


def _tell(conf: cfg.ConfigOpts, summary: dict[str, Any], output: TextIO) -> None:
    text = orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode()
    if conf.summary:
        Path(conf.summary).write_text(text + "\n", encoding="utf-8")
    else:
        print(text, file=output)
