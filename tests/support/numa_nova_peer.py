# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Nova's part of ``tools/compare-numa``; runs where Nova is installed, not accelsched.

Reads cases as JSON on standard input and answers, for each, where Nova's own ``numa_fit_instance_to_host`` puts the
server: for each of its nodes the host's node, the pins and the page size; or null.
"""

from __future__ import annotations

import json
import os
import sys

# Nova and its libraries write to standard output now and then.
_ANSWER = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import nova.conf  # noqa: E402
from nova import objects  # noqa: E402
from nova.pci import stats  # noqa: E402
from nova.virt import hardware  # noqa: E402


def _host(nodes: list) -> objects.NUMATopology:
    cells = [
        objects.NUMACell(
            id=node["node"],
            socket=node["socket"],
            cpuset=set(node["shared"]),
            pcpuset=set(node["dedicated"]),
            memory=node["memory_mb"],
            cpu_usage=node["shared_used"],
            memory_usage=node["memory_used_mb"],
            siblings=[set(core) for core in node["cores"]],
            pinned_cpus=set(node["pinned"]),
            mempages=[
                objects.NUMAPagesTopology(size_kb=size, total=total, used=used, reserved=0)
                for size, total, used in node["pages"]
            ],
        )
        for node in nodes
    ]
    return objects.NUMATopology(cells=cells)


def _instance(asked: dict) -> objects.InstanceNUMATopology:
    cells = [
        objects.InstanceNUMACell(
            id=number,
            cpuset=set(node["shared"]),
            pcpuset=set(node["dedicated"]),
            memory=node["memory_mb"],
            pagesize=asked["page_size"],
            cpu_policy=asked["policy"],
            cpu_thread_policy=asked["threads"],
        )
        for number, node in enumerate(asked["nodes"])
    ]
    return objects.InstanceNUMATopology(cells=cells, emulator_threads_policy=None)


def _fit(case: dict) -> list | None:
    host = _host(case["host"])
    limits = objects.NUMATopologyLimits(cpu_allocation_ratio=case["cpu_ratio"], ram_allocation_ratio=case["ram_ratio"])
    pools = [
        objects.PciDevicePool(
            product_id=f"{kind:04x}", vendor_id="10de", numa_node=node, count=count, tags={"dev_type": "type-PCI"}
        )
        for kind, node, count in case["pools"]
    ]
    requests = [
        objects.InstancePCIRequest(
            count=count,
            spec=[{"vendor_id": "10de", "product_id": f"{kind:04x}"}],
            numa_policy=policy,
            request_id=f"aaaaaaaa-0000-4000-8000-00000000000{kind}",
        )
        for kind, count, policy in case["devices"]
    ]
    found = hardware.numa_fit_instance_to_host(
        host,
        _instance(case["request"]),
        provider_mapping=None,
        limits=limits,
        pci_requests=requests or None,
        pci_stats=stats.PciDeviceStats(host, objects.PciDevicePoolList(objects=pools)) if requests else None,
    )
    if found is None:
        return None
    return [
        {"node": cell.id, "pins": sorted((cell.cpu_pinning or {}).values()), "page_kb": cell.pagesize}
        for cell in found.cells
    ]


def main() -> None:
    """Answer all cases."""
    nova.conf.CONF([], project="nova", default_config_files=[])
    objects.register_all()
    json.dump([_fit(case) for case in json.load(sys.stdin)], _ANSWER)
    _ANSWER.flush()


if __name__ == "__main__":
    main()
