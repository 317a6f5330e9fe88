# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Compare where servers fit by NUMA nodes, CPUs, pages and PCI devices with what Nova says, on random hosts.

``tools/compare-numa --cases 2000`` draws hosts, what servers hold of them, a request and devices, asks Nova's own
``numa_fit_instance_to_host`` and ours, and prints the first difference. Nova comes from PyPI into a virtual environment
of its own (``--peer-venv``, made when it is not there).
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from typing import Any

from accelsched.placement.numa import topology
from accelsched.placement.numa.topology import HostNuma, NodeState, Ratios
from accelsched.scheduler.numa.fit import Device, Fit, place
from accelsched.scheduler.numa.request import ANY, LARGE, SMALL, GuestNode, NumaRequest

_PEER = pathlib.Path(__file__).with_name("numa_nova_peer.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, return the exit status: 1 at a difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the first; case N of seed S is case 0 of seed S + N")
    parser.add_argument("--peer-venv", type=pathlib.Path, metavar="DIR", help="a virtual environment with Nova")
    args = parser.parse_args(argv)
    cases = [draw(random.Random(args.seed + number)) for number in range(args.cases)]
    theirs = ask_nova(cases, args.peer_venv)
    fitting = 0
    for number, (case, their) in enumerate(zip(cases, theirs, strict=True)):
        ours = fit(case)
        difference = compare(case, ours, their)
        if difference is not None:
            print(f"seed {args.seed + number}: {difference}\n{json.dumps(case, indent=1)}\nNova: {their}\nours: {ours}")
            return 1
        fitting += their is not None
    print(f"{len(cases)} cases alike, seeds {args.seed} to {args.seed + len(cases) - 1}; {fitting} of them fit")
    return 0


def draw(chance: random.Random) -> dict[str, Any]:
    """Draw a host, what is held of it, a request, and devices of two kinds."""
    threads, paged = chance.choice([1, 2, 2, 3]), chance.random() < 0.6
    host, cpu = [], 0
    for number in range(chance.choice([1, 1, 2, 2, 3, 4])):
        cores = [list(range(cpu + core * threads, cpu + (core + 1) * threads)) for core in range(chance.randint(1, 5))]
        cpu += len(cores) * threads
        kind_of = {one: chance.choices("sd-", [3, 6, 1])[0] for core in cores for one in core}
        dedicated = [one for one, kind in kind_of.items() if kind == "d"]
        offered = [[one for one in core if kind_of[one] != "-"] for core in cores]
        memory = chance.randint(1, 8) * 512
        huge = chance.randint(0, memory // 4) if paged else 0
        pages = {4: (memory - 2 * huge) * 256, 2048: huge, 1048576: 0} if paged else {}
        busy = chance.random() < 0.4
        host.append(
            {
                "node": number,
                "socket": chance.choice([0, 1]),
                "shared": [one for one, kind in kind_of.items() if kind == "s"],
                "dedicated": dedicated,
                "cores": [core for core in offered if core] or [[10_000 + number]],
                "memory_mb": memory,
                "pinned": chance.sample(dedicated, chance.randint(0, len(dedicated)) // 2) if busy else [],
                "shared_used": chance.randint(0, list(kind_of.values()).count("s")) if busy else 0,
                "memory_used_mb": chance.randint(0, memory) if busy else 0,
                "pages": [(size, total, chance.randint(0, total) if busy else 0) for size, total in pages.items()],
            }
        )
    return {
        "host": host,
        "request": _request(chance),
        "cpu_ratio": chance.choice([1.0, 1.5, 4.0]),
        "ram_ratio": chance.choice([1.0, 1.5]),
        **_devices(chance, len(host)),
    }


def _request(chance: random.Random) -> dict[str, Any]:
    policy = chance.choice(["shared", "dedicated", "dedicated", "mixed"])
    nodes: list[dict[str, Any]] = []
    cpu = 0
    # A node of a mixed server has both kinds: of one without dedicated CPUs Nova asks cores to be free all the same,
    # and of one without shared CPUs that those are not oversold. Nodes are alike, for Nova remembers what fits where
    # by numbers that it changes meanwhile.
    shared = 0 if policy == "dedicated" else chance.randint(1, 3)
    dedicated = 0 if policy == "shared" else chance.choice([1, 1, 2, 2, 3, 4, 5])
    memory = chance.choice([1, 64, 256, 256, 300])
    for _ in range(chance.choice([1, 1, 2, 3])):
        cpus = list(range(cpu, cpu + shared + dedicated))
        cpu += len(cpus)
        nodes.append({"shared": cpus[:shared], "dedicated": cpus[shared:], "memory_mb": memory})
    return {
        "nodes": nodes,
        "policy": policy,
        "threads": None if policy == "shared" else chance.choice([None, "prefer", "require", "isolate"]),
        "page_size": chance.choice([None, None, None, SMALL, LARGE, ANY, 4, 2048]),
    }


def _devices(chance: random.Random, nodes: int) -> dict[str, Any]:
    """Draw pools of devices (kind, node, how many) and what is asked (kind, how many, policy)."""
    if chance.random() < 0.4:
        return {"pools": [], "devices": []}
    kinds = chance.choice([1, 2])
    return {
        "pools": [
            (kind, node, chance.randint(1, 3))
            for kind in range(kinds)
            for node in [*range(nodes), None]
            if chance.random() < 0.5
        ],
        "devices": [
            (kind, chance.randint(1, 3), chance.choice(["legacy", "preferred", "required", "socket"]))
            for kind in range(kinds)
        ],
    }


def fit(case: dict[str, Any]) -> Fit | None:
    """Return how ours places a case: of every choice of devices the one with fewest far ones."""
    asked = case["request"]
    nodes = tuple(GuestNode(tuple(n["shared"]), tuple(n["dedicated"]), n["memory_mb"]) for n in asked["nodes"])
    request = NumaRequest(nodes, asked["policy"], asked["threads"], asked["page_size"])
    each = []
    for kind, count, affinity in case["devices"]:
        there = [node for of, node, many in case["pools"] if of == kind for _ in range(many)]
        each.append({tuple(Device(node, affinity) for node in some) for some in itertools.combinations(there, count)})
    found = (
        place(
            _host(case["host"]), request, Ratios(case["cpu_ratio"], case["ram_ratio"]), list(itertools.chain(*chosen))
        )
        for chosen in itertools.product(*each)
    )
    return min((one for one in found if one is not None), key=lambda one: one.distant, default=None)


def _host(nodes: list[dict[str, Any]]) -> HostNuma:
    parsed = topology.parse(
        {
            "nodes": [
                {
                    **{key: node[key] for key in ("node", "socket", "memory_mb")},
                    "shared_cpus": node["shared"],
                    "dedicated_cpus": node["dedicated"],
                    "cores": [core for core in node["cores"] if core[0] < 10_000],
                    "pages": {str(size): total for size, total, _ in node["pages"]},
                }
                for node in nodes
            ]
        }
    )
    return tuple(
        NodeState(
            node,
            frozenset(told["pinned"]),
            told["shared_used"],
            told["memory_used_mb"],
            {size: used for size, _, used in told["pages"]},
        )
        for node, told in zip(parsed, nodes, strict=True)
    )


def compare(case: dict[str, Any], ours: Fit | None, theirs: list[dict[str, Any]] | None) -> str | None:
    """Return what is different; None when nothing that should be alike is.

    Where several nodes of the host will do, either may choose; on a host with one node, cores and pages are alike too.
    """
    if theirs is None and case["request"]["page_size"] in (ANY, LARGE) and len(case["host"]) > 1:
        # Nova writes the size that it found on one node into the request, and looks for no other on the next.
        return None
    if (ours is None) != (theirs is None):
        return "one finds a place and the other does not"
    if ours is None or theirs is None or len(case["host"]) > 1:
        return None
    (held,), (their,) = ours.placement, theirs
    cores = case["host"][0]["cores"]

    def of_cores(pins: Iterable[int]) -> list[int]:
        return [sum(cpu in core for cpu in pins) for core in cores]

    # Which of a core's threads Nova takes depends on the order that Python keeps a set in.
    if of_cores(held.pins.values()) != of_cores(their["pins"]):
        return "CPUs of other cores are pinned"
    return "the pages are of another size" if held.page_kb != their["page_kb"] else None


def ask_nova(cases: list[dict[str, Any]], directory: pathlib.Path | None) -> list[list[dict[str, Any]] | None]:
    """Return Nova's answers."""
    with tempfile.TemporaryDirectory(prefix="accelsched-compare-") as scratch:
        home = directory or pathlib.Path(scratch) / "nova"
        python = home / "bin" / "python"
        if not python.exists():
            print("installing nova", file=sys.stderr, flush=True)
            venv.create(home, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "nova"], check=True, stdout=sys.stderr)
        done = subprocess.run(
            [python, _PEER], input=json.dumps(cases).encode(), stdout=subprocess.PIPE, cwd=scratch, check=True
        )
    answers: list[list[dict[str, Any]] | None] = json.loads(done.stdout)
    return answers


if __name__ == "__main__":
    sys.exit(main())
