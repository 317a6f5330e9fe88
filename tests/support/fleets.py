# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Small fleets for tests, as pictures or as rows in a database."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from accelsched import names, wire
from accelsched.placement import partitioning, trees
from accelsched.placement.partitioning import Held, Partition, Position, Rule
from accelsched.placement.picture import InventoryRow, Picture, ProviderRow, ProviderTable
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.table import HostRow, HostTable


def inventory(total: int, *, used: int = 0, reserved: int = 0, ratio: float = 1.0, step: int = 1) -> InventoryRow:
    """Return an inventory all of which can be taken at once."""
    return InventoryRow(total, reserved, 1, total, step, ratio, used)


def partitioned(
    rule: Rule, total: int, used: Mapping[str, int], positions: Iterable[Position] = ()
) -> tuple[dict[str, InventoryRow], Partition]:
    """Return the inventories of a provider under a capacity rule, ceilings as claims keep them."""
    held = Held(used, frozenset(positions))
    inventories = {
        name: dataclasses.replace(inventory(total, used=used.get(name, 0)), ceiling=ceiling)
        for name, ceiling in partitioning.ceilings(rule, held).items()
    }
    return inventories, Partition(rule, held.positions)


class PictureBuilder:
    """Builds a picture host by host."""

    def __init__(self) -> None:
        self.rows: list[ProviderRow] = []
        self.table: list[HostRow] = []
        self.silent_s: list[float] = []

    def provider(
        self,
        name: str,
        inventories: Mapping[str, InventoryRow],
        parent: ProviderRow | None = None,
        traits: Iterable[str] = (),
        aggregates: Iterable[str] = (),
        partition: Partition | None = None,
    ) -> ProviderRow:
        """Add a provider; its uuid is its name."""
        id_ = len(self.rows) + 1
        row = ProviderRow(
            id_,
            name,
            name,
            0,
            parent.root_id if parent else id_,
            parent.id if parent else None,
            frozenset(traits),
            frozenset(aggregates),
            dict(inventories),
            partition=partition,
        )
        self.rows.append(row)
        return row

    def host(
        self,
        name: str,
        gpus: int = 0,
        vgpus: int = 8,
        *,
        cpus: int = 16,
        used: int = 0,
        traits: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """Add a host with some GPUs.

        :param used: vGPUs in use on its first GPU
        :param traits: of the host, besides COMPUTE_NODE
        :param fields: of HostRow, or silent_s
        """
        root = self.provider(
            name,
            {"VCPU": inventory(cpus), "MEMORY_MB": inventory(65536), "DISK_GB": inventory(1000)},
            traits=["COMPUTE_NODE", *traits],
            aggregates=[aggregate.uuid for aggregate in fields.get("aggregates", ())],
        )
        for number in range(gpus):
            taken = used if number == 0 else 0
            self.provider(
                f"{name}_gpu_{number}", {"VGPU": inventory(vgpus, used=taken)}, root, traits=["CUSTOM_VGPU_TYPE_A"]
            )
        self.silent_s.append(fields.pop("silent_s", 0.0))
        told = {"simulated": True, "disabled": False, "forced_down": False, **fields}
        self.table.append(HostRow(name=name, node_uuid=name, agent="agent", **told))

    @property
    def hosts(self) -> Facts:
        """Return what is known of the hosts, and nothing of any request."""
        return self.facts()

    def facts(self, **about: Any) -> Facts:
        """Return what is known of the hosts, and of a request: fields of Facts."""
        return Facts(HostTable(self.table, -np.array(self.silent_s, dtype=np.float64)), now=0.0, **about)

    def picture(self) -> Picture:
        """Return the picture of what was added."""
        picture = Picture()
        picture.apply((), ProviderTable.of(self.rows))
        return picture


def amounts(total: int) -> wire.InventoryReport:
    """Return an inventory as agents report it, all of which can be taken at once."""
    return {
        "total": total,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": 1.0,
    }


def host_report(name: str, gpus: int = 1, vgpus: int = 8, cpus: int = 16) -> wire.HostReport:
    """Return what an agent would report of a host with some GPUs."""
    node = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    providers: list[wire.ProviderReport] = [
        {
            "uuid": node,
            "name": name,
            "parent": None,
            "inventories": {"VCPU": amounts(cpus), "MEMORY_MB": amounts(65536), "DISK_GB": amounts(1000)},
            "traits": ["COMPUTE_NODE"],
        }
    ]
    for number in range(gpus):
        child = f"{name}_gpu_{number}"
        providers.append(
            {
                "uuid": names.provider_uuid(node, child),
                "name": child,
                "parent": node,
                "inventories": {"VGPU": amounts(vgpus)},
                "traits": ["CUSTOM_VGPU_TYPE_A"],
            }
        )
    return {
        "host": name,
        "node_uuid": node,
        "agent": "agent",
        "simulated": True,
        "rpc_version": wire.AGENT_VERSION,
        "hypervisor": {
            "type": "simulated",
            "version": 1,
            "hostname": name,
            "cpu_arch": "x86_64",
            "virt_type": "simulated",
        },
        "providers": providers,
    }


def load(session: Session, *reports: wire.HostReport) -> None:
    """Put hosts' providers into the resource database."""
    for report in reports:
        trees.apply(session, report["providers"], {})
