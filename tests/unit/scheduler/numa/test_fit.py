# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numa_hosts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched.placement.numa.columns import NumaColumns, packable
from accelsched.placement.numa.topology import HostNuma, NodeState, Ratios, with_held
from accelsched.scheduler.numa import narrow
from accelsched.scheduler.numa.fit import Device, fit_node, pin, place
from accelsched.scheduler.numa.request import GuestNode, NumaRequest

RATIOS = st.builds(Ratios, st.sampled_from([1.0, 1.5, 4.0]), st.sampled_from([0.8, 1.0, 1.5]))
DEVICES = st.lists(
    st.builds(
        Device,
        st.one_of(st.none(), st.integers(0, 3)),
        st.sampled_from(["legacy", "preferred", "required", "socket"]),
    ),
    max_size=3,
)


def one_node(dedicated: int, threads: str | None = None, memory_mb: int = 64) -> NumaRequest:
    return NumaRequest((GuestNode((), tuple(range(dedicated)), memory_mb),), "dedicated", threads, None)  # type: ignore[arg-type]


@given(numa_hosts.hosts(), numa_hosts.requests(), RATIOS)
def test_a_server_gets_what_it_asked_for_and_nothing_that_others_have(
    host: HostNuma, request: NumaRequest, ratios: Ratios
) -> None:
    fit = place(host, request, ratios)
    if fit is None:
        return
    before = {state.node.number: state for state in host}
    assert len({held.node for held in fit.placement}) == len(request.nodes)
    for guest, held in zip(request.nodes, fit.placement, strict=True):
        state = before[held.node]
        pinned = set(held.pins.values())
        assert tuple(held.pins) == guest.dedicated
        assert held.shared == guest.shared
        assert len(pinned) == len(guest.dedicated)
        assert pinned <= state.node.dedicated - state.pinned
        assert held.memory_mb == guest.memory_mb
        if request.page_size is not None:
            assert held.page_kb in state.node.pages
            assert held.memory_mb * 1024 % (held.page_kb or 1) == 0
        cores = [pinned & core for core in state.node.cores if pinned & core]
        if request.threads == "require" and guest.dedicated:
            # Each core gives as many threads, two at least; what is left over comes from one more.
            assert state.node.threads > 1
            assert all(len(core) >= 2 for core in cores[:-1])
        if request.threads == "isolate" and guest.dedicated:
            assert all(len(core) == 1 for core in state.node.cores)
    for state in with_held(host, fit.placement):
        was = before[state.node.number]
        assert state.pinned <= state.node.dedicated
        assert len(state.pinned) - len(was.pinned) == sum(
            len(held.pins) for held in fit.placement if held.node == state.node.number
        )
        for size, total in state.node.pages.items():
            if request.page_size is not None and state.pages_used.get(size, 0) > was.pages_used.get(size, 0):
                assert state.pages_used[size] <= total


@given(numa_hosts.hosts(), numa_hosts.requests(), RATIOS, DEVICES)
def test_a_way_is_found_if_any_order_of_nodes_is_one(
    host: HostNuma, request: NumaRequest, ratios: Ratios, devices: list[Device]
) -> None:
    """Against trying every order of the host's nodes, with the rule for devices spelt out."""

    def near(device: Device, numbers: set[int]) -> bool:
        there = {state.node.number: state for state in host}
        if device.affinity == "preferred" or device.node in numbers:
            return device.affinity == "preferred" or device.node in there
        if device.affinity == "legacy":
            return device.node is None or device.node not in there
        sockets = {there[number].node.socket for number in numbers}
        return device.affinity == "socket" and device.node in there and there[device.node].node.socket in sockets

    fewest: int | None = None
    for order in itertools.permutations(host, len(request.nodes)):
        numbers = {state.node.number for state in order}
        fits = all(fit_node(s, g, request, ratios) for s, g in zip(order, request.nodes, strict=True))
        if fits and all(near(device, numbers) for device in devices):
            distant = sum(device.node not in numbers for device in devices)
            fewest = distant if fewest is None else min(fewest, distant)
    fit = place(host, request, ratios, devices)
    assert (None if fit is None else fit.distant) == fewest


@given(st.lists(numa_hosts.hosts(), max_size=5), numa_hosts.requests(), RATIOS)
def test_what_the_whole_fleet_is_asked_is_what_each_host_is_asked(
    fleet: list[HostNuma], request: NumaRequest, ratios: Ratios
) -> None:
    columns = NumaColumns()
    for slot, host in enumerate(fleet):
        columns.put(slot, host)
    slots = np.arange(len(fleet) + 1)  # the last one has not told its nodes
    everywhere = np.full(len(slots), ratios.cpu), np.full(len(slots), ratios.ram)
    mask = narrow.mask(columns, columns.rows_of(slots), request, *everywhere)
    assert mask.tolist() == [place(host, request, ratios) is not None for host in fleet] + [False]
    if not mask.any():
        reason, on = narrow.shortfall(columns, columns.rows_of(slots), request)
        assert on is None or on[0] < len(fleet)
        assert ("tells no NUMA nodes" in reason) == (not fleet)


@given(numa_hosts.hosts(), numa_hosts.requests())
def test_columns_that_placements_were_added_to_say_what_new_ones_say(host: HostNuma, request: NumaRequest) -> None:
    fit = place(host, request, Ratios())
    if fit is None:
        return
    before, after = NumaColumns(), NumaColumns()
    before.put(3, host)
    changed = before.copy()
    changed.hold(3, fit.placement)
    after.put(3, with_held(host, fit.placement))
    row = after.rows_of(np.array([3]))
    for name in ("number", "free", "packable", "shared_used", "memory_used_mb"):
        assert getattr(changed, name)[row].tolist() == getattr(after, name)[row].tolist()
    assert changed.host(3) == after.host(3)
    assert before.host(3) == host
    changed.put(3, None)
    assert not changed
    assert changed.host(3) == ()


@given(numa_hosts.hosts(), st.integers(1, 12))
def test_as_many_threads_of_cores_can_be_required_as_the_columns_say(host: HostNuma, count: int) -> None:
    for state in host:
        assert (pin(state, count, "require") is not None) == (count <= packable(state))


@pytest.mark.parametrize(
    ("threads", "count", "expected"),
    [
        (None, 3, [0, 1, 2]),
        ("prefer", 4, [0, 1, 2, 3]),
        ("require", 3, [0, 1, 2]),
        ("isolate", 2, None),
    ],
)
def test_threads_of_a_core_are_taken_together(threads: str | None, count: int, expected: list[int] | None) -> None:
    (state,) = numa_hosts.state(nodes=1, cores=4, threads=2)
    assert pin(state, count, threads) == expected  # type: ignore[arg-type]


def test_emptier_cores_come_first_and_single_threads_last() -> None:
    (state,) = numa_hosts.state(nodes=1, cores=4, threads=2)
    state = NodeState(state.node, pinned=frozenset({0, 3}))
    assert pin(state, 4, None) == [4, 5, 6, 7]
    assert pin(state, 5, "require") is None
    assert pin(state, 6, "prefer") == [1, 2, 4, 5, 6, 7]


def test_isolated_cpus_are_cores_without_threads() -> None:
    (state,) = numa_hosts.state(nodes=1, cores=4, threads=1)
    assert pin(state, 2, "isolate") == [0, 1]
    assert pin(state, 2, "require") is None


def test_nodes_with_devices_are_left_to_those_who_want_devices() -> None:
    host = numa_hosts.state(nodes=2)
    alone = place(host, one_node(2), Ratios(), (), {0: 2})
    assert alone is not None
    assert [held.node for held in alone.placement] == [1]
    near = place(host, one_node(2), Ratios(), [Device(0, "preferred")], {0: 2})
    assert near is not None
    assert [held.node for held in near.placement] == [0]


def test_many_nodes_and_devices_are_matched_without_trying_every_order() -> None:
    """Thirty-two nodes in any order would be more ways than atoms."""
    host = numa_hosts.state(nodes=32, cores=2)
    request = NumaRequest(tuple(GuestNode((), (n,), 64) for n in range(32)), "dedicated", None, None)
    fit = place(host, request, Ratios(), [Device(n, "required") for n in range(32)])
    assert fit is not None
    assert sorted(held.node for held in fit.placement) == list(range(32))
