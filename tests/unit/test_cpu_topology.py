# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched import errors, wire
from accelsched.cpu_topology import CpuTopology, choose

PARTS = ("sockets", "cores", "threads")


def flavor(vcpus: int, **said: int | str) -> wire.FlavorSpec:
    specs = {f"hw:cpu_{name}": str(value) for name, value in said.items()}
    return {"name": "f", "vcpus": vcpus, "ram_mb": 1, "disk_gb": 1, "extra_specs": specs}


def image(**said: int | str) -> dict[str, str]:
    return {f"hw_cpu_{name}": str(value) for name, value in said.items()}


def test_nothing_asked_for_is_nothing_in_particular() -> None:
    assert choose(flavor(4), {}) is None


@pytest.mark.parametrize(
    ("asked", "of_image", "chosen"),
    [
        (flavor(8, sockets=2), {}, (2, 4, 1)),  # few threads
        (flavor(8, threads=2), {}, (4, 1, 2)),  # then many sockets
        (flavor(8, sockets=1, cores=4, threads=2), {}, (1, 4, 2)),
        (flavor(8, sockets=3, threads=2), {}, (4, 1, 2)),  # as many wishes as can be had
        (flavor(8, max_sockets=2), {}, (2, 4, 1)),
        (flavor(8, max_sockets=2, max_cores=2), {}, (2, 2, 2)),
        (flavor(8, sockets=4), image(cores=8), (1, 8, 1)),  # the image's wishes replace all of the flavor's
        (flavor(8, sockets=4, max_sockets=4), image(max_sockets=2), (2, 4, 1)),  # no room for the flavor's wish
        (flavor(8), image(max_sockets=1, max_threads=1), (1, 8, 1)),
        (flavor(1, sockets=1), {}, (1, 1, 1)),
    ],
)
def test_wishes_are_granted_within_the_bounds(
    asked: wire.FlavorSpec, of_image: dict[str, str], chosen: tuple[int, int, int]
) -> None:
    assert choose(asked, of_image) == CpuTopology(*chosen)


@pytest.mark.parametrize(
    ("asked", "of_image", "named"),
    [
        (flavor(8, max_sockets=2), image(max_sockets=4), "hw_cpu_max_sockets: 4 is more than the flavor's"),
        (flavor(8, max_cores=2), image(cores=4), "hw_cpu_cores: 4 is more than"),
        (flavor(8, max_sockets=1, max_cores=2, max_threads=2), {}, "no 8 CPUs within 1 sockets, 2 cores, 2 threads"),
        (flavor(8), image(sockets="two"), "hw_cpu_sockets: 'two' is not a whole number"),
        (flavor(8, cores=0), {}, "hw:cpu_cores: '0' is not a whole number"),
    ],
)
def test_what_cannot_be_is_refused_by_name(asked: wire.FlavorSpec, of_image: dict[str, str], named: str) -> None:
    with pytest.raises(errors.InvalidError, match=named):
        choose(asked, of_image)


NUMBERS = st.dictionaries(st.sampled_from(PARTS), st.integers(1, 64))


@given(st.integers(1, 512), NUMBERS, NUMBERS)
def test_whatever_is_chosen_has_as_many_cpus_and_is_within_the_bounds(
    vcpus: int, wishes: dict[str, int], bounds: dict[str, int]
) -> None:
    said = {**wishes, **{f"max_{part}": number for part, number in bounds.items()}}
    try:
        chosen = choose(flavor(vcpus, **said), {})
    except errors.InvalidError:
        assert all(part in bounds for part in PARTS)  # an unbounded part takes any number of CPUs
        return
    assert (chosen is None) == (not said)
    if chosen is not None:
        assert math.prod(chosen) == vcpus
        assert all(number <= bounds.get(part, vcpus) for part, number in chosen._asdict().items())
