# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts under the names that Nova gives to what a scheduler knows of one (``free_ram_mb``, ``vcpus_total`` ...).

Extra specs ``capabilities:*``, the hint ``query`` and filters ported from Nova speak of hosts by these names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsched.placement.picture import NONE, Floats, Ints
from accelsched.scheduler.hosts import Hosts

Column = npt.NDArray[Any]


def _inventory(hosts: Hosts, resource_class: str, field: str) -> Column:
    columns = hosts.picture.classes.get(resource_class)
    if columns is None:
        return np.zeros(len(hosts), dtype=np.int64)
    rows = columns.rows_of(hosts.slots)
    found: Column = np.where(rows == NONE, 0, getattr(columns, field)[rows])
    return found


def _total(resource_class: str, factor: int = 1) -> Callable[[Hosts], Ints]:
    return lambda hosts: _inventory(hosts, resource_class, "total") * factor


def _used(resource_class: str, factor: int = 1) -> Callable[[Hosts], Ints]:
    def used(hosts: Hosts) -> Ints:
        columns = hosts.picture.classes.get(resource_class)
        if columns is None:
            return np.zeros(len(hosts), dtype=np.int64)
        rows = columns.rows_of(hosts.slots)
        found: Ints = np.where(rows == NONE, 0, hosts.usage.get(resource_class, columns.used)[rows]) * factor
        return found

    return used


def _free(resource_class: str, factor: int = 1) -> Callable[[Hosts], Ints]:
    total, used = _total(resource_class, factor), _used(resource_class, factor)
    return lambda hosts: total(hosts) - used(hosts)


def _ratio(resource_class: str) -> Callable[[Hosts], Floats]:
    return lambda hosts: _inventory(hosts, resource_class, "allocation_ratio").astype(np.float64)


def _rows(field: Callable[[Any], Any]) -> Callable[[Hosts], Column]:
    return lambda hosts: np.array([field(row) for row in hosts.rows], dtype=object)


_COLUMNS: Mapping[str, Callable[[Hosts], Column]] = {
    "vcpus_total": _total("VCPU"),
    "vcpus_used": _used("VCPU"),
    "total_usable_ram_mb": _total("MEMORY_MB"),
    "free_ram_mb": _free("MEMORY_MB"),
    "total_usable_disk_gb": _total("DISK_GB"),
    "free_disk_mb": _free("DISK_GB", 1024),
    "disk_mb_used": _used("DISK_GB", 1024),
    "cpu_allocation_ratio": _ratio("VCPU"),
    "ram_allocation_ratio": _ratio("MEMORY_MB"),
    "disk_allocation_ratio": _ratio("DISK_GB"),
    "num_instances": lambda hosts: hosts.num_instances,
    "num_io_ops": lambda hosts: hosts.num_io_ops,
    "failed_builds": lambda hosts: hosts.failed_builds,
    "host": _rows(lambda row: row.name),
    "uuid": _rows(lambda row: row.node_uuid),
    "host_ip": _rows(lambda row: row.hypervisor.get("host_ip")),
    "hypervisor_hostname": _rows(lambda row: row.hypervisor.get("hostname", row.name)),
    "nodename": _rows(lambda row: row.hypervisor.get("hostname", row.name)),
}
# By Nova's name, the name in wire.HypervisorReport.
_OF_HYPERVISOR = {"hypervisor_type": "type", "hypervisor_version": "version"}


def _of_kind(kind: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if path[0] == "cpu_info":
        found: Any = {"arch": kind.get("cpu_arch"), **kind.get("cpu_info", {})}
    else:
        found = kind.get(_OF_HYPERVISOR.get(path[0], path[0]))
    for step in path[1:]:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def column(hosts: Hosts, *path: str) -> Column:
    """Return an attribute of every host: [len(hosts)], of numbers, or of objects with None where a host has none.

    :param path: the attribute's name; more names lead into it (``cpu_info``, ``arch``)
    """
    if path[0] in _COLUMNS:
        return _COLUMNS[path[0]](hosts) if len(path) == 1 else np.full(len(hosts), None, dtype=object)
    return _objects(hosts, lambda kind: _of_kind(kind, path))


def _objects(hosts: Hosts, question: Callable[[Mapping[str, Any]], Any]) -> Column:
    # By way of indices: numpy would make one array of answers that are lists.
    answers: list[Any] = []

    def number(kind: Mapping[str, Any]) -> int:
        answers.append(question(kind))
        return len(answers) - 1

    numbers = hosts.by_hypervisor(number, np.int64)
    boxed = np.empty(len(answers), dtype=object)
    for index, answer in enumerate(answers):
        boxed[index] = answer
    found: Column = boxed[numbers]
    return found


class HostState:
    """One host, for filters that look at one at a time: the fields of :class:`HostRow`, and the names above."""

    def __init__(self, hosts: Hosts, index: int, columns: dict[str, Column] | None = None) -> None:
        """
        :param columns: shared by the hosts of one pass, so that each attribute is worked out once
        """
        self._hosts = hosts
        self._index = index
        self._columns = {} if columns is None else columns
        self._row = hosts.facts.table.rows[int(hosts.at[index])]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        row = self._row
        if hasattr(row, name):
            return getattr(row, name)
        if name not in self._columns:
            self._columns[name] = column(self._hosts, name)
        return self._columns[name][self._index]
