# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The sockets, cores and threads that a guest sees, as flavor and image ask for them. Pure.

Names and rules are Nova's (https://docs.openstack.org/nova/latest/admin/cpu-topologies.html): ``hw:cpu_sockets``,
``hw:cpu_cores`` and ``hw:cpu_threads`` are wishes, ``hw:cpu_max_sockets`` and so on bounds; the image's properties
``hw_cpu_sockets`` and so on are wishes in place of the flavor's, and bounds within the flavor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from accelsched import errors, wire

_PARTS = ("sockets", "cores", "threads")
_NO_BOUND = 65536


class CpuTopology(NamedTuple):
    """How many CPUs a guest sees, and how they hang together."""

    sockets: int
    cores: int  # of a socket
    threads: int  # of a core


def choose(flavor: wire.FlavorSpec, image_properties: Mapping[str, Any]) -> CpuTopology | None:
    """Return what the guest is to see: of all that is within the bounds what has most of the wishes.

    Among equals few threads are preferred, then many sockets.

    :returns: None when nothing is asked for
    :raises accelsched.errors.InvalidError: a number is none, the image goes beyond a bound, or nothing has that many
        CPUs within the bounds
    """
    of_flavor = _three(lambda part: flavor["extra_specs"].get(f"hw:cpu_{part}"), "extra spec hw:cpu_")
    of_image = _three(lambda part: image_properties.get(f"hw_cpu_{part}"), "image property hw_cpu_")
    most_of_flavor = _three(lambda part: flavor["extra_specs"].get(f"hw:cpu_max_{part}"), "extra spec hw:cpu_max_")
    most_of_image = _three(lambda part: image_properties.get(f"hw_cpu_max_{part}"), "image property hw_cpu_max_")
    if not (of_flavor or of_image or most_of_flavor or most_of_image):
        return None
    _check_within(most_of_image, most_of_flavor, "image property hw_cpu_max_", "the flavor's hw:cpu_max_")
    most = {**most_of_flavor, **most_of_image}
    _check_within(of_image, most, "image property hw_cpu_", "the bound of ")
    # A wish that the image's bounds leave no room for is none any more.
    within = all(of_flavor[part] <= most.get(part, _NO_BOUND) for part in of_flavor)
    wishes = of_image or (of_flavor if within else {})
    possible = list(_possible(flavor["vcpus"], most))
    if not possible:
        bounds = ", ".join(f"{number} {part}" for part, number in most.items())
        raise errors.InvalidError(f"hw:cpu_max_sockets, _cores, _threads: no {flavor['vcpus']} CPUs within {bounds}")

    def rank(topology: CpuTopology) -> tuple[int, int, int]:
        granted = sum(getattr(topology, part) == number for part, number in wishes.items())
        return granted, -topology.threads, topology.sockets

    return max(possible, key=rank)


def _three(said: Callable[[str], object], where: str) -> dict[str, int]:
    """Return the numbers that are said of sockets, cores and threads."""
    numbers: dict[str, int] = {}
    for part in _PARTS:
        if (text := said(part)) in (None, ""):
            continue
        if not str(text).isdecimal() or not 1 <= int(str(text)) <= _NO_BOUND:
            raise errors.InvalidError(f"{where}{part}: {text!r} is not a whole number from 1 to {_NO_BOUND}")
        numbers[part] = int(str(text))
    return numbers


def _check_within(numbers: Mapping[str, int], most: Mapping[str, int], what: str, bound: str) -> None:
    for part, number in numbers.items():
        if number > most.get(part, _NO_BOUND):
            raise errors.InvalidError(f"{what}{part}: {number} is more than {bound}{part}, {most[part]}")


def _possible(count: int, most: Mapping[str, int]) -> Iterator[CpuTopology]:
    for sockets in _divisors(count, most.get("sockets", _NO_BOUND)):
        for cores in _divisors(count // sockets, most.get("cores", _NO_BOUND)):
            threads = count // sockets // cores
            if threads <= most.get("threads", _NO_BOUND):
                yield CpuTopology(sockets, cores, threads)


def _divisors(number: int, most: int) -> Iterator[int]:
    return (divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)
