# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which GPUs of a host fast links join, as NVIDIA's driver tells: ``nvidia-smi topo -m``.

Joined GPUs make sets. Where some have more links between them than others, those make sets within: all that are joined
by two or more links, for example, within all that are joined at all.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from oslo_config import cfg
from oslo_log import log

from accelsched import names
from accelsched.agent.devices.base import DeviceError, link_traits
from accelsched.agent.privileged import operations

LOG = log.getLogger(__name__)

_TOLD_S = 600.0  # so long what nvidia-smi said is taken for true
_MOST = 64  # sets of a host
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_GPU = re.compile(r"GPU(\d+)")
_LINKS = re.compile(r"NV(\d+)")
_ADDRESS = re.compile(r"^\s*(\d+)\s*,\s*([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\s*$", re.MULTILINE)

Links = Mapping[frozenset[str], int]
"""How many links join two GPUs, by their PCI addresses."""


class Partitions:
    """The sets of one host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: tuple[float, Sequence[frozenset[str]]] = (float("-inf"), ())
        self._failure: str | None = None  # as it was logged

    def of(self, address: str) -> list[int]:
        """Return the numbers of the sets that a GPU is in. Only to be asked of one that NVIDIA's driver is bound to."""
        with self._lock:
            since, found = self._told
            if time.monotonic() - since > _TOLD_S:
                found = self._ask(found)
                self._told = time.monotonic(), found
        return [number for number, members in enumerate(found) if address in members]

    def _ask(self, before: Sequence[frozenset[str]]) -> Sequence[frozenset[str]]:
        try:
            addresses = parse_addresses(operations.ask_nvidia_smi("addresses"))
            found = partitions(parse_topology(operations.ask_nvidia_smi("topology"), addresses))
        except DeviceError as exc:
            if self._failure != str(exc):
                self._failure = str(exc)
                LOG.warning("Which links join GPUs is not known: %s", exc)
            return before
        self._failure = None
        return found


def traits(conf: cfg.ConfigOpts, found: Partitions, address: str, driver: str | None) -> frozenset[str]:
    """Return the traits of a GPU for the sets that it is in: the operator's, or where he says none its driver's.

    :param driver: that is bound to it
    """
    if conf.devices.link_partitions or driver != "nvidia":
        return link_traits(conf, address)
    return frozenset(map(names.link_partition_trait, found.of(address)))


def parse_addresses(text: str) -> dict[int, str]:
    """Return PCI addresses by nvidia-smi's numbers, of ``--query-gpu=index,pci.bus_id --format=csv,noheader``."""
    return {int(number): f"{domain[-4:]}:{rest}".lower() for number, domain, rest in _ADDRESS.findall(text)}


def parse_topology(text: str, addresses: Mapping[int, str]) -> Links:
    """Return the links in the matrix of ``nvidia-smi topo -m``; what is no GPU, or has no address, is left out."""
    lines = [_COLOUR.sub("", line).split() for line in text.splitlines()]
    heads = [line for line in lines if line and all(map(_GPU.fullmatch, line[:1])) and _is_head(line)]
    if not heads:
        return {}
    # GPUs come before network cards, and these before what is said of CPUs.
    columns = [int(match[1]) for match in map(_GPU.fullmatch, heads[0]) if match]
    links: dict[frozenset[str], int] = {}
    for line in lines:
        row = _GPU.fullmatch(line[0]) if line and not _is_head(line) else None
        if row is None:
            continue
        for column, cell in zip(columns, line[1:], strict=False):
            joined = _LINKS.fullmatch(cell)
            ends = {addresses[number] for number in (int(row[1]), column) if number in addresses}
            if joined and len(ends) == 2:
                links[frozenset(ends)] = int(joined[1])
    return links


def _is_head(line: Sequence[str]) -> bool:
    return len(line) > 1 and (_GPU.fullmatch(line[1]) is not None or line[1] == "CPU")


def partitions(links: Links) -> list[frozenset[str]]:
    """Return the sets that links make, the largest first."""
    found: set[frozenset[str]] = set()
    for least in sorted(set(links.values())):
        found |= set(_components(pair for pair, count in links.items() if count >= least))
    return sorted(found, key=lambda members: (-len(members), sorted(members)))[:_MOST]


def _components(pairs: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Return the sets of what pairs join, directly or by others."""
    found: list[frozenset[str]] = []
    for pair in pairs:
        touched = [members for members in found if members & pair]
        found = [members for members in found if not members & pair] + [pair.union(*touched)]
    return found
