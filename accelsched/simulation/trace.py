# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Traces of GPU clusters as CSV files: hosts and pods in, a fleet picture and requests out.

The columns are those of the traces published with the fragmentation paper (see
:mod:`accelsched.scheduler.weighers.fragmentation`). One GPU is a provider with 1,000 units of ``CUSTOM_GPU_MILLI``; its
model is a trait. A pod that wants whole GPUs asks for as many groups with all 1,000 units, isolated from each other.
CPUs are counted in thousandths: a pod's ``VCPU`` is its ``cpu_milli``.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from accelsched import errors, wire
from accelsched.placement.picture import InventoryRow, Picture, ProviderRow, ProviderTable
from accelsched.scheduler import request
from accelsched.scheduler.hosts import HostRow
from accelsched.scheduler.request import RequestSpec

GPU_CLASS = "CUSTOM_GPU_MILLI"
WHOLE_GPU = 1000
_MOST_GPUS = 64
_MODEL_TRAIT = "CUSTOM_GPU_MODEL_"


@dataclasses.dataclass(frozen=True)
class Node:
    """One host: CPU in thousandths, memory in MiB."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclasses.dataclass(frozen=True)
class Pod:
    """One request. ``gpus`` devices of ``gpu_milli`` each; ``models`` that are allowed, all when empty."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    models: frozenset[str]

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what is equal for pods that ask for the same."""
        return (self.cpu_milli, self.memory_mib, self.gpus, self.gpu_milli, self.models)

    @property
    def gpu_milli_in_all(self) -> int:
        """Return the thousandths of GPUs that it asks for."""
        return self.gpus * self.gpu_milli


def read_nodes(path: Path) -> list[Node]:
    """Read ``sn, cpu_milli, memory_mib, gpu, model``.

    :raises accelsched.errors.InvalidError: naming the file, the line and what is wrong
    """
    nodes = []
    names: set[str] = set()
    for line, row in _rows(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model")):
        with _told(path, line):
            node = Node(
                row["sn"], _number(row, "cpu_milli"), _number(row, "memory_mib"), _number(row, "gpu"), row["model"]
            )
            if node.gpus > _MOST_GPUS:
                raise ValueError(f"gpu: more than {_MOST_GPUS}")
            if node.name in names:
                raise ValueError(f"sn: {node.name} is there twice")
        names.add(node.name)
        nodes.append(node)
    if not nodes:
        raise errors.InvalidError(f"{path}: no host")
    return nodes


def read_pods(path: Path) -> list[Pod]:
    """Read ``name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec``; more columns are left alone.

    :raises accelsched.errors.InvalidError: naming the file, the line and what is wrong
    """
    pods = []
    for line, row in _rows(path, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")):
        with _told(path, line):
            gpus = _number(row, "num_gpu")
            milli = min(_number(row, "gpu_milli"), WHOLE_GPU) if gpus else 0
            if gpus > _MOST_GPUS:
                raise ValueError(f"num_gpu: more than {_MOST_GPUS}")
            if gpus and not milli:
                raise ValueError("gpu_milli: a pod with GPUs asks for none of each")
            models = frozenset(filter(None, row["gpu_spec"].split("|"))) if gpus else frozenset()
            pods.append(Pod(row["name"], _number(row, "cpu_milli"), _number(row, "memory_mib"), gpus, milli, models))
    return pods


def picture_of(nodes: Sequence[Node]) -> tuple[Picture, list[HostRow]]:
    """Return a fleet of these hosts with nothing on them."""
    rows: list[ProviderRow] = []
    hosts: list[HostRow] = []
    for node in nodes:
        root_id = len(rows) + 1
        resources = {"VCPU": node.cpu_milli, "MEMORY_MB": node.memory_mib}
        rows.append(_provider(root_id, node.name, root_id, None, resources, frozenset()))
        for number in range(node.gpus):
            name = f"{node.name}/{number}"
            traits = frozenset({model_trait(node.model)})
            rows.append(_provider(len(rows) + 1, name, root_id, root_id, {GPU_CLASS: WHOLE_GPU}, traits))
        hosts.append(HostRow(node.name, node.name, "simulation", True, False, False))
    picture = Picture()
    picture.apply((), ProviderTable.of(rows))
    return picture, hosts


def request_of(pod: Pod, models: frozenset[str]) -> RequestSpec:
    """Return a pod's request, made from a flavor as any other.

    :param models: of the whole fleet. A flavor can ask for this and that trait but not for this or that, so a pod that
        allows some models forbids the others
    """
    extra: dict[str, str] = {}
    suffixes = [str(number) for number in range(1, pod.gpus + 1)]
    for suffix in suffixes:
        extra[f"resources{suffix}:{GPU_CLASS}"] = str(pod.gpu_milli)
        if pod.models:
            extra |= {f"trait{suffix}:{model_trait(model)}": "forbidden" for model in sorted(models - pod.models)}
    if suffixes:
        extra["group_policy"] = "isolate"
    flavor: wire.FlavorSpec = {
        "name": "pod",
        "vcpus": pod.cpu_milli,
        "ram_mb": pod.memory_mib,
        "disk_gb": 0,
        "extra_specs": extra,
    }
    return request.build(flavor, None, project_id="simulation")


def model_trait(model: str) -> str:
    """Return the trait of a GPU model."""
    return _MODEL_TRAIT + re.sub(r"[^A-Z0-9_]", "_", model.upper())


def _provider(
    id_: int, name: str, root_id: int, parent_id: int | None, resources: Mapping[str, int], traits: frozenset[str]
) -> ProviderRow:
    inventories = {
        resource: InventoryRow(total, 0, 1, total, 1, 1.0, 0) for resource, total in resources.items() if total
    }
    return ProviderRow(id_, name, name, 0, root_id, parent_id, traits, frozenset(), inventories)


@contextlib.contextmanager
def _told(path: Path, line: int) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise errors.InvalidError(f"{path}, line {line}: {exc}") from exc


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as source:
            reader = csv.DictReader(source)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise errors.InvalidError(f"{path}: no column {', '.join(missing)}")
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in columns}
    except OSError as exc:
        raise errors.InvalidError(f"{path}: {exc.strerror}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise errors.InvalidError(f"{path}: {exc}") from exc


def _number(row: Mapping[str, str], name: str) -> int:
    text = row[name].strip() or "0"
    try:
        # Published traces write some amounts as 1024.0.
        number = int(float(text))
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: {text!r} is not a number") from None
    if not 0 <= number < 2**31:
        raise ValueError(f"{name}: {text} is not between 0 and {2**31 - 1}")
    return number
