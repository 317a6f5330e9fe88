# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a flavor and an image ask of NUMA nodes, CPUs and pages, understood and found to make sense. Pure.

Names, values and what goes together are Nova's (https://docs.openstack.org/nova/latest/admin/cpu-topologies.html).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, cast, get_args

from oslo_utils import strutils

from accelsched import cpu_sets, errors, wire

T = TypeVar("T")

CpuPolicy = Literal["shared", "dedicated", "mixed"]
ThreadPolicy = Literal["prefer", "require", "isolate"]
Affinity = Literal["legacy", "preferred", "required", "socket"]
"""How near to a server's nodes its devices must be: on one of them or on none that is known; there if possible; there;
on one of their sockets."""

SMALL, LARGE, ANY = -1, -2, -3
"""Page sizes: the host's ordinary ones; any larger ones; the largest that fit."""

HYPERTHREADING = "HW_CPU_HYPERTHREADING"
_MOST_NODES = 64
_MOST_PAGE_KB = 1 << 40
CPU_RESOURCES = re.compile(r"resources[A-Za-z0-9_-]{0,64}:(VCPU|PCPU)")
_TRAIT = re.compile(rf"trait[A-Za-z0-9_-]{{0,64}}:{HYPERTHREADING}")
_OF_NODE = re.compile(r"hw:numa_(cpus|mem)\.(.*)")

# Extra specs of Nova's that nothing here obeys: a server without what it asked for is not what was asked for.
NOT_SUPPORTED = {
    "hw:emulator_threads_policy": "emulator threads run on the CPUs of the server's nodes",
    "hw:cpu_realtime": "real-time scheduling of CPUs is not supported",
    "hw:cpu_realtime_mask": "real-time scheduling of CPUs is not supported",
}


@dataclasses.dataclass(frozen=True)
class GuestNode:
    """One NUMA node of a server: its CPUs by their kind, and its memory."""

    shared: tuple[int, ...]
    dedicated: tuple[int, ...]
    memory_mb: int


@dataclasses.dataclass(frozen=True)
class NumaRequest:
    """What a server asks of its host's nodes.

    :ivar page_size: in KiB, or :data:`SMALL`, :data:`LARGE`, :data:`ANY`; None asks for nothing
    :ivar threads: how its dedicated CPUs are to be spread over cores; None is as ``prefer``
    """

    nodes: tuple[GuestNode, ...]
    policy: CpuPolicy
    threads: ThreadPolicy | None
    page_size: int | None

    @property
    def pins(self) -> bool:
        """Whether any of its CPUs are dedicated."""
        return self.policy != "shared"


@dataclasses.dataclass(frozen=True)
class _Said:
    """What flavor and image say of ``hw:NAME`` and ``hw_NAME``."""

    flavor: wire.FlavorSpec
    image: Mapping[str, str]

    def both(self, name: str) -> tuple[str | None, str | None]:
        return self.flavor["extra_specs"].get(f"hw:{name}") or None, self.image.get(f"hw_{name}") or None


def parse(flavor: wire.FlavorSpec, image_properties: Mapping[str, str]) -> NumaRequest | None:
    """Return what is asked of NUMA nodes; None when nothing is.

    :raises accelsched.errors.InvalidError: naming the extra spec or property that is wrong
    """
    said = _Said(flavor, image_properties)
    policy = _cpu_policy(said)
    threads = _thread_policy(said)
    mask = _dedicated_mask(flavor)
    if policy != "mixed" and mask is not None:
        raise errors.InvalidError("extra spec hw:cpu_dedicated_mask: only goes with hw:cpu_policy=mixed")
    if policy == "mixed" and mask is None:
        raise errors.InvalidError("extra spec hw:cpu_policy=mixed: needs hw:cpu_dedicated_mask")
    if policy in ("shared", None) and threads is not None:
        raise errors.InvalidError("hw:cpu_thread_policy: only goes with hw:cpu_policy=dedicated or mixed")
    count = _node_count(said)
    page_size = _page_size(said)
    given = _given_nodes(said)
    if count is None and page_size is None and policy in ("shared", None):
        if given is not None:
            raise errors.InvalidError("hw:numa_cpus.N and hw:numa_mem.N: need hw:numa_nodes")
        return None
    cpus = frozenset(range(flavor["vcpus"]))
    dedicated = cpus if policy == "dedicated" else mask or frozenset()
    cells = _even(flavor, count or 1) if given is None else _as_given(flavor, count or 1, *given)
    nodes = tuple(
        GuestNode(tuple(sorted(some - dedicated)), tuple(sorted(some & dedicated)), memory) for some, memory in cells
    )
    return NumaRequest(nodes, policy or "shared", threads, page_size)


def affinity(flavor: wire.FlavorSpec, image_properties: Mapping[str, str]) -> Affinity | None:
    """Return how near devices must be; None when neither flavor nor image says.

    :raises accelsched.errors.InvalidError: when they say no such thing, or different things
    """
    said = _Said(flavor, image_properties)
    of_flavor, of_image = said.both("pci_numa_affinity_policy")
    if of_flavor and of_image and of_flavor != of_image:
        raise errors.InvalidError(
            f"hw_pci_numa_affinity_policy: the image says {of_image}, the flavor {of_flavor}; they must agree"
        )
    return _one_of("pci_numa_affinity_policy", of_flavor or of_image, Affinity)


def _one_of(name: str, value: str | None, allowed: object) -> T | None:
    if value is not None and value not in get_args(allowed):
        raise errors.InvalidError(f"hw:{name}: {value[:50]!r} is none of {', '.join(get_args(allowed))}")
    return cast("T | None", value)


def _cpu_policy(said: _Said) -> CpuPolicy | None:
    of_flavor, of_image = said.both("cpu_policy")
    flavor: CpuPolicy | None = _one_of("cpu_policy", of_flavor, CpuPolicy)
    image: CpuPolicy | None = _one_of("cpu_policy", of_image, CpuPolicy)
    # An image may ask for less than the flavor gives, never for more; of an exact policy it may not ask for another.
    forbidden = {"shared": ("dedicated", "mixed"), "mixed": ("dedicated",)}.get(flavor or "", ())
    if image in forbidden:
        raise errors.InvalidError(f"hw_cpu_policy: the image asks for {image}, which the flavor's {flavor} rules out")
    policy = flavor or image
    asked = {"VCPU": 0, "PCPU": 0}
    for key, value in said.flavor["extra_specs"].items():
        if (match := CPU_RESOURCES.fullmatch(key)) and value.isdecimal():
            asked[match[1]] += int(value)
    if not any(asked.values()):
        return policy
    if policy is not None:
        raise errors.InvalidError(
            "resources:VCPU and resources:PCPU: do not go with hw:cpu_policy; use one or the other"
        )
    if all(asked.values()):
        raise errors.InvalidError("resources:VCPU and resources:PCPU: use one or the other")
    if asked["VCPU"]:
        return None
    if asked["PCPU"] != said.flavor["vcpus"]:
        raise errors.InvalidError(
            f"extra spec resources:PCPU: {asked['PCPU']} asked for, but the flavor has {said.flavor['vcpus']} vcpus"
        )
    return "dedicated"


def _thread_policy(said: _Said) -> ThreadPolicy | None:
    of_flavor, of_image = said.both("cpu_thread_policy")
    flavor: ThreadPolicy | None = _one_of("cpu_thread_policy", of_flavor, ThreadPolicy)
    image: ThreadPolicy | None = _one_of("cpu_thread_policy", of_image, ThreadPolicy)
    if flavor in ("require", "isolate") and image not in (None, flavor):
        raise errors.InvalidError(f"hw_cpu_thread_policy: the image says {image}, the flavor {flavor}; they must agree")
    # "prefer" of a flavor leaves the choice to the image.
    policy = flavor if flavor not in (None, "prefer") else image or flavor
    said_by_trait = [value for key, value in said.flavor["extra_specs"].items() if _TRAIT.fullmatch(key)]
    if said.image.get(f"trait:{HYPERTHREADING}") == "required":
        said_by_trait.append("required")
    if not said_by_trait or not _pins(said):
        return policy
    if policy is not None:
        raise errors.InvalidError(
            f"trait:{HYPERTHREADING}: does not go with hw:cpu_thread_policy; use one or the other"
        )
    return "require" if "required" in said_by_trait else "isolate"


def _pins(said: _Said) -> bool:
    return _cpu_policy(said) in ("dedicated", "mixed")


def _dedicated_mask(flavor: wire.FlavorSpec) -> frozenset[int] | None:
    text = flavor["extra_specs"].get("hw:cpu_dedicated_mask", "").strip()
    if not text:
        return None
    cpus = frozenset(range(flavor["vcpus"]))
    # What begins with an exclusion excludes from all.
    mask = _cpus("hw:cpu_dedicated_mask", f"0-{flavor['vcpus'] - 1},{text}" if text.startswith("^") else text)
    if not mask <= cpus:
        raise errors.InvalidError(f"extra spec hw:cpu_dedicated_mask: CPU {max(mask)} is not one of {len(cpus)} vcpus")
    if not mask or mask == cpus:
        raise errors.InvalidError("extra spec hw:cpu_dedicated_mask: must leave both dedicated and shared CPUs")
    return mask


def _cpus(name: str, text: str) -> frozenset[int]:
    try:
        return cpu_sets.parse(text)
    except ValueError as exc:
        raise errors.InvalidError(f"{name}: {exc}") from exc


def _number(name: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text.strip()):
        raise errors.InvalidError(f"{name}: {text[:50]!r} is not a whole number")
    return int(text)


def _node_count(said: _Said) -> int | None:
    of_flavor, of_image = said.both("numa_nodes")
    if of_flavor and of_image:
        raise errors.InvalidError("hw_numa_nodes: the flavor says it already; the image may not")
    text = of_flavor or of_image
    if text is None:
        return None
    count = _number("hw:numa_nodes", text)
    if not 1 <= count <= _MOST_NODES:
        raise errors.InvalidError(f"hw:numa_nodes: {count} is not from 1 to {_MOST_NODES}")
    return count


def _page_size(said: _Said) -> int | None:
    of_flavor, of_image = said.both("mem_page_size")
    if of_flavor is None:
        if of_image is not None:
            raise errors.InvalidError("hw_mem_page_size: the flavor must say hw:mem_page_size=any or large for that")
        return None
    size = _size("hw:mem_page_size", of_flavor)
    if of_image is None:
        return size
    if size not in (ANY, LARGE):
        raise errors.InvalidError(f"hw_mem_page_size: the flavor says {of_flavor}; the image may not say it too")
    return _size("hw_mem_page_size", of_image)


def _size(name: str, text: str) -> int:
    words = {"small": SMALL, "large": LARGE, "any": ANY}
    if text in words:
        return words[text]
    try:
        kb = int(text) if text.isdecimal() else int(strutils.string_to_bytes(text, return_int=True)) // 1024
    except ValueError:
        kb = 0
    if not 1 <= kb <= _MOST_PAGE_KB:
        raise errors.InvalidError(
            f"{name}: {text[:50]!r} is neither small, large, any nor a size such as 2048 (KiB), 2MB or 1GB"
        )
    return kb


def _given_nodes(said: _Said) -> tuple[list[frozenset[int]], list[int]] | None:
    """Return CPUs and memory by node, where flavor or image spell them out."""
    cpus = _listed(said, "cpus", _cpus)
    memory = _listed(said, "mem", _number)
    if cpus is None and memory is None:
        return None
    if cpus is None or memory is None or len(cpus) != len(memory):
        raise errors.InvalidError("hw:numa_cpus.N and hw:numa_mem.N: each node needs both")
    return cpus, memory


def _listed(said: _Said, what: str, read: Callable[[str, str], T]) -> list[T] | None:
    of_flavor = {
        match[2]: value
        for key, value in said.flavor["extra_specs"].items()
        if (match := _OF_NODE.fullmatch(key)) and match[1] == what
    }
    image_key = re.compile(rf"hw_numa_{what}\.(.*)")
    of_image = {match[1]: value for key, value in said.image.items() if (match := image_key.fullmatch(key))}
    if of_flavor and of_image:
        raise errors.InvalidError(f"hw_numa_{what}.N: the flavor says it already; the image may not")
    found = of_flavor or of_image
    if not found:
        return None
    if set(found) != {str(number) for number in range(len(found))}:
        raise errors.InvalidError(f"hw:numa_{what}.N: nodes are numbered 0, 1, 2 ... without a gap")
    return [read(f"hw:numa_{what}.{number}", found[str(number)]) for number in range(len(found))]


def _even(flavor: wire.FlavorSpec, count: int) -> list[tuple[frozenset[int], int]]:
    if flavor["vcpus"] % count or flavor["ram_mb"] % count:
        raise errors.InvalidError(
            f"hw:numa_nodes: {flavor['vcpus']} vcpus and {flavor['ram_mb']} MiB cannot be divided evenly by {count}; "
            "say hw:numa_cpus.N and hw:numa_mem.N"
        )
    each = flavor["vcpus"] // count
    return [(frozenset(range(n * each, (n + 1) * each)), flavor["ram_mb"] // count) for n in range(count)]


def _as_given(
    flavor: wire.FlavorSpec, count: int, cpus: list[frozenset[int]], memory: list[int]
) -> list[tuple[frozenset[int], int]]:
    if len(cpus) != count:
        raise errors.InvalidError(f"hw:numa_cpus.N and hw:numa_mem.N: given for {len(cpus)} of {count} nodes")
    left = set(range(flavor["vcpus"]))
    for number, some in enumerate(cpus):
        if not some or not memory[number]:
            raise errors.InvalidError(
                f"hw:numa_cpus.{number} and hw:numa_mem.{number}: a node has a CPU and memory at least"
            )
        for cpu in sorted(some):
            if cpu >= flavor["vcpus"]:
                raise errors.InvalidError(f"hw:numa_cpus.{number}: CPU {cpu} is not one of {flavor['vcpus']} vcpus")
            if cpu not in left:
                raise errors.InvalidError(f"hw:numa_cpus.{number}: CPU {cpu} is on two nodes")
            left.remove(cpu)
    if left:
        raise errors.InvalidError(f"hw:numa_cpus.N: CPUs {cpu_sets.format(left)} are on no node")
    if sum(memory) != flavor["ram_mb"]:
        raise errors.InvalidError(
            f"hw:numa_mem.N: {sum(memory)} MiB in all, but the flavor has {flavor['ram_mb']}; they must be equal"
        )
    return list(zip(cpus, memory, strict=True))
