# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What libvirt's capabilities say of the host, and of what guests can have there.

Formats: https://libvirt.org/formatcaps.html, https://libvirt.org/formatdomaincaps.html
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lxml import etree

from accelsched import cpu_sets
from accelsched.agent.numa import HostNode


def numa_nodes(xml: str) -> Sequence[HostNode]:
    """Return the host's NUMA nodes; none where libvirt tells of none.

    :param xml: as ``virConnectGetCapabilities`` gives it
    """
    return [_node(cell) for cell in etree.fromstring(xml.encode()).iterfind("./host/topology/cells/cell")]


def _node(cell: etree._Element) -> HostNode:
    cpus = cell.findall("./cpus/cpu")
    cores: set[frozenset[int]] = set()
    sockets: set[int] = set()
    for cpu in cpus:
        number = int(cpu.get("id", "0"))
        # A CPU that is offline has an id and nothing more.
        cores.add(cpu_sets.parse(cpu.get("siblings", "")) or frozenset({number}))
        if (socket := cpu.get("socket_id")) is not None:
            sockets.add(int(socket))
    return HostNode(
        number=int(cell.get("id", "0")),
        socket=sockets.pop() if len(sockets) == 1 else None,
        cores=tuple(sorted(cores, key=min)),
        memory_mb=int(cell.findtext("./memory") or 0) // 1024,
        pages={int(pages.get("size", "0")): int(pages.text or 0) for pages in cell.findall("./pages")},
    )


def cpu_models(xml: str, mode: str) -> Collection[str | None]:
    """Return the models that a guest's CPU of a mode can be of; None alone where they have no names, if it can be had.

    :param xml: as ``virConnectGetDomainCapabilities`` gives it
    """
    found = etree.fromstring(xml.encode()).find(f"./cpu/mode[@name='{mode}'][@supported='yes']")
    if found is None:
        return ()
    if mode != "custom":
        return (None,)
    return {model.text for model in found.iterfind("./model") if model.get("usable") != "no"}
