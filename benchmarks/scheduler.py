# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure decisions: where servers go, without claims, messages or HTTP; with ``--calls``, until claims are durable.

``python benchmarks/scheduler.py --hosts 10000 --servers 1000 --json FILE`` places identical servers on a fleet in
memory with the default filters and weighers, as one request, and one server alone. ``--devices 4`` gives each host so
many GPUs of eight vGPUs, and each server asks for one. ``--numa`` gives each host two NUMA nodes of sixteen cores with
two threads, all dedicated and up to half of them taken, and two PCI devices on each node; each server asks for four
CPUs of its own, threads of cores together, and by an alias for a device on the same node. ``--peer nova`` measures
Nova's filters and weighers in the same run, with as many hosts of the same size: Nova from PyPI in a virtual
environment of its own (``--peer-venv``, made when it is not there).

``python benchmarks/scheduler.py --hosts 1000 --calls 100 --servers 10 --schedulers 4`` measures create calls for so
many servers each instead, from the first call to the last claim that is committed: an API, schedulers, PostgreSQL and
RabbitMQ, all real. At the end every server's allocations and devices are checked, and that nothing was given twice.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from accelsched import conf as options
from accelsched import names, wire
from accelsched.conf import pci
from accelsched.placement.numa import topology
from accelsched.placement.picture import InventoryRow, Picture, ProviderRow, ProviderTable
from accelsched.scheduler import pipeline, plugins, request
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.table import HostRow, HostTable

_PEER = pathlib.Path(__file__).resolve().parent / "harness" / "nova_peer.py"
SIZE = {"VCPU": 64, "MEMORY_MB": 262144, "DISK_GB": 2000}
NUMA_VCPUS = 4
NUMA_FILTERS = ("NUMATopologyFilter", "PciPassthroughFilter")
NUMA_ALIAS = {"name": "gpu", "vendor_id": "10de", "product_id": "20b0", "numa_policy": "required"}
NUMA_EXTRA = {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require", "pci_passthrough:alias": "gpu:1"}
FLAVOR = {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 10}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, return the exit status."""
    args = _arguments(argv)
    told = _durable(args) if args.calls else _decisions(args)
    text = orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _decisions(args: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = {
        "hosts": args.hosts,
        "servers": args.servers,
        "devices": args.devices,
        "numa": args.numa,
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        **_ours(args),
    }
    if args.peer:
        told |= _theirs(args)
        told["ratio"] = round(told["decisions_per_second"] / told["peer_decisions_per_second"], 1)
    return told


def _durable(args: argparse.Namespace) -> dict[str, Any]:
    # The tests' support has databases and brokers.
    top = pathlib.Path(__file__).resolve().parents[1]
    sys.path += [str(top / "tests" / "support"), str(top / "tools")]
    from harness import calls

    load = round(os.getloadavg()[0], 2)
    return {"load_average": load, **calls.measure(args.hosts, args.schedulers, args.calls, args.servers)}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=10000, help="in the fleet")
    parser.add_argument("--servers", type=int, default=1000, help="of the request")
    parser.add_argument("--devices", type=int, default=0, help="GPUs of a host; a server asks for a vGPU then")
    parser.add_argument("--calls", type=int, default=0, help="measure create calls for --servers each, to their claims")
    parser.add_argument("--schedulers", type=int, default=1, help="processes that serve these calls")
    parser.add_argument("--numa", action="store_true", help="servers ask for pinned CPUs and a PCI device beside them")
    parser.add_argument("--repeats", type=int, default=5, help="times that each is measured; the median counts")
    parser.add_argument("--peer", choices=("nova",), help="measure it too")
    parser.add_argument("--peer-servers", type=int, default=3, help="that the peer places")
    parser.add_argument("--peer-venv", type=pathlib.Path, metavar="DIR", help="a virtual environment with the peer")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured to FILE")
    return parser.parse_args(argv)


def _ours(args: argparse.Namespace) -> dict[str, Any]:
    picture, facts = _numa_fleet(args.hosts) if args.numa else _fleet(args.hosts, args.devices)
    conf = options.new()
    options.parse(conf, [], "scheduler-benchmark")
    if args.numa:
        conf.set_override("filters", [*conf.scheduler.filters, *NUMA_FILTERS], group="scheduler")
        conf.set_override("alias", [orjson.dumps(NUMA_ALIAS).decode()], group="pci")
    chosen = plugins.load(conf)
    spec = _request(args, pci.aliases(conf))

    def measured(servers: int) -> tuple[float, float]:
        """Return the median of seconds by the clock, and of seconds that the processor was ours."""
        seconds, ours = [], []
        for number in range(args.repeats):
            clock, processor = time.perf_counter(), time.process_time()
            decision = pipeline.decide(picture, facts, spec, servers, chosen, str(number))
            ours.append(time.process_time() - processor)
            seconds.append(time.perf_counter() - clock)
            if len(decision.selections) != servers:
                raise SystemExit(f"only {len(decision.selections)} of {servers} servers fit on this fleet")
        return statistics.median(seconds), statistics.median(ours)

    measured(1)  # columns that are kept are made
    whole, whole_processor = measured(args.servers)
    one, one_processor = measured(1)
    return {
        "decisions_per_second": round(args.servers / whole, 1),
        "decisions_per_processor_second": round(args.servers / max(whole_processor, 1e-6), 1),
        "seconds": round(whole, 4),
        "one_server_ms": round(1000 * one, 2),
        "one_server_processor_ms": round(1000 * one_processor, 2),
    }


def _request(args: argparse.Namespace, aliases: Mapping[str, pci.Alias]) -> request.RequestSpec:
    extra = NUMA_EXTRA if args.numa else {"resources:VGPU": "1"} if args.devices else {}
    asked: wire.FlavorSpec = {
        "name": "f",
        "vcpus": NUMA_VCPUS if args.numa else FLAVOR["VCPU"],
        "ram_mb": FLAVOR["MEMORY_MB"],
        "disk_gb": FLAVOR["DISK_GB"],
        "extra_specs": extra,
    }
    return request.build(asked, None, project_id="p", aliases=aliases)


def _numa_nodes() -> wire.NumaTopology:
    """Return the nodes of each host: CPUs of a core are neighbours, ordinary pages only."""
    memory_mb = SIZE["MEMORY_MB"] // 2
    return {
        "nodes": [
            {
                "node": node,
                "socket": node,
                "shared_cpus": [],
                "dedicated_cpus": list(range(32 * node, 32 * node + 32)),
                "cores": [[cpu, cpu + 1] for cpu in range(32 * node, 32 * node + 32, 2)],
                "memory_mb": memory_mb,
                "pages": {"4": memory_mb * 256},
            }
            for node in range(2)
        ]
    }


def _taken(count: int) -> list[list[int]]:
    """Return the dedicated CPUs that are taken on each host: the first of each node, up to half of them."""
    chance = random.Random(1)
    return [[32 * node + cpu for node in range(2) for cpu in range(chance.randrange(17))] for _ in range(count)]


def _numa_fleet(count: int) -> tuple[Picture, Facts]:
    nodes = topology.parse(_numa_nodes())
    rows: list[ProviderRow] = []
    hosts: list[HostRow] = []
    for number, taken in enumerate(_taken(count)):
        name = f"host-{number}"
        used = {"PCPU": len(taken), "MEMORY_MB": 0, "DISK_GB": 0}
        inventories = {
            resource_class: InventoryRow(total, 0, 1, total, 1, 1.0, used[resource_class])
            for resource_class, total in {**SIZE, "PCPU": SIZE["VCPU"]}.items()
            if resource_class != "VCPU"
        }
        numa = tuple(topology.NodeState(node, node.dedicated & set(taken)) for node in nodes)
        traits = frozenset({"HW_CPU_HYPERTHREADING"})
        root = ProviderRow(
            len(rows) + 1, name, name, 0, len(rows) + 1, None, traits, frozenset(), inventories, numa=numa
        )
        rows.append(root)
        for device in range(4):
            traits = frozenset({names.pci_device_trait("10de", "20b0"), names.numa_node_trait(device % 2)})
            one = {names.pci_class("10de", "20b0"): InventoryRow(1, 0, 1, 1, 1, 1.0, 0)}
            child = f"{name}/{device}"
            rows.append(ProviderRow(len(rows) + 1, child, child, 0, root.id, root.id, traits, frozenset(), one))
        hosts.append(HostRow(name, name, "agent", True, False, False))
    picture = Picture()
    picture.apply((), ProviderTable.of(rows))
    return picture, Facts(HostTable(hosts, np.zeros(count)), now=0.0)


def _fleet(count: int, devices: int) -> tuple[Picture, Facts]:
    rows: list[ProviderRow] = []
    hosts: list[HostRow] = []

    def add(name: str, root: int | None, amounts: dict[str, int]) -> int:
        id_ = len(rows) + 1
        inventories = {name: InventoryRow(total, 0, 1, total, 1, 1.0, 0) for name, total in amounts.items()}
        rows.append(ProviderRow(id_, name, name, 0, root or id_, root, frozenset(), frozenset(), inventories))
        return id_

    for number in range(count):
        name = f"host-{number}"
        root = add(name, None, SIZE)
        for device in range(devices):
            add(f"{name}/{device}", root, {"VGPU": 8})
        hosts.append(HostRow(name, name, "agent", True, False, False))
    picture = Picture()
    picture.apply((), ProviderTable.of(rows))
    return picture, Facts(HostTable(hosts, np.zeros(count)), now=0.0)


def _theirs(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="accelsched-benchmark-") as scratch:
        directory = args.peer_venv or pathlib.Path(scratch) / "nova"
        python = directory / "bin" / "python"
        if not python.exists():
            print("installing nova", file=sys.stderr, flush=True)
            venv.create(directory, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "nova"], check=True, stdout=sys.stderr)
        asked: dict[str, Any] = {"hosts": args.hosts, "servers": args.peer_servers, "size": SIZE, "flavor": FLAVOR}
        if args.numa:
            asked["flavor"] = {**FLAVOR, "VCPU": NUMA_VCPUS}
            asked["numa"] = {**_numa_nodes(), "taken": _taken(args.hosts), "extra": NUMA_EXTRA, "alias": NUMA_ALIAS}
        done = subprocess.run(
            [python, _PEER], input=orjson.dumps(asked), stdout=subprocess.PIPE, cwd=scratch, check=True
        )
    answer: dict[str, Any] = orjson.loads(done.stdout)
    return {f"peer_{name}": value for name, value in answer.items()}


if __name__ == "__main__":
    sys.exit(main())
