# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes from the agent's report to the claim and back, on the three databases."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fleets
import numa_hosts
import patience
import pytest
from sqlalchemy import func, select

from accelsched import errors, names, wire
from accelsched.compute import assignments, hosts, rebuilding, servers
from accelsched.db.compute import Decision, Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.db.placement import NumaPlacement, NumaTopology
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import claim
from accelsched.scheduler import request as requests
from accelsched.scheduler.service import Scheduler

# What has nothing to do with the kind of database.
on_sqlite = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
ORIGIN = Origin("req-1", "p", "u")
DEDICATED = {"hw:cpu_policy": "dedicated"}


def host(name: str, gpus: int = 0, **about: Any) -> wire.HostReport:
    """Return the report of a host with NUMA nodes, all of whose CPUs are dedicated, and GPUs on these in turn."""
    report = fleets.host_report(name, gpus=gpus, vgpus=1)
    told = numa_hosts.told(**about)
    report["numa"] = told
    root = report["providers"][0]
    del root["inventories"]["VCPU"]
    root["inventories"]["PCPU"] = fleets.amounts(sum(len(node["dedicated_cpus"]) for node in told["nodes"]))
    for number, gpu in enumerate(report["providers"][1:]):
        gpu["traits"].append(names.numa_node_trait(number % len(told["nodes"])))
    return report


def tell(db: Database, *reports: wire.HostReport) -> None:
    for told in reports:
        db.transact(lambda session, told=told: hosts.report(session, told))


def ask(db: Database, count: int, specs: dict[str, str], *, vcpus: int = 2, least: int = 1) -> list[str]:
    flavor: wire.FlavorSpec = {"name": "f", "vcpus": vcpus, "ram_mb": 512, "disk_gb": 1, "extra_specs": specs}
    spec = requests.build(flavor, None, project_id="p")
    new = servers.NewServers(
        *("p", "u", "vm", {}, dict(flavor), None, None, False, spec.to_dict(), least, count), ORIGIN
    )
    return db.transact(lambda session: servers.create(session, new)).uuids


def wait_done(db: Database) -> None:
    def done() -> bool:
        with db.reading() as session:
            return not session.scalar(select(func.count()).select_from(Request).where(Request.state != "done"))

    patience.wait(done, interval_s=0.02)


def assigned(db: Database, *names_: str) -> list[wire.Assignment]:
    with db.reading() as session:
        return assignments.of_hosts(session, names_)


def pins(of: list[wire.Assignment]) -> list[tuple[str, int]]:
    return [(one["host"], cpu) for one in of for node in one["numa"] for cpu in node["pins"].values()]


def test_two_schedulers_never_pin_a_cpu_twice_and_use_them_all(db: Database, schedulers: list[Scheduler]) -> None:
    tell(db, host("h0"), host("h1", cores=2))
    for _ in range(8):
        ask(db, 2, DEDICATED)
    for scheduler in schedulers:
        scheduler.start()
    wait_done(db)
    taken = assigned(db, "h0", "h1")
    assert len(taken) == 12
    assert len(pins(taken)) == len(set(pins(taken))) == 24
    assert all(len(one["numa"]) == 1 for one in taken)


def test_what_was_decided_twice_is_claimed_once(db: Database, schedulers: list[Scheduler]) -> None:
    """PCPUs are left, but not these: the pins are looked at again when a decision is written down."""
    tell(db, host("h0"))
    ask(db, 1, DEDICATED)
    ask(db, 1, DEDICATED)
    with db.reading() as session:
        rows = list(session.scalars(select(Request).order_by(Request.id)))
    decision = schedulers[0]._decider.decide(requests.RequestSpec.from_dict(rows[0].spec), 1, "seed")
    taken = [db.transact(lambda session, row=row: claim.take(session, row, decision.selections)) for row in rows]
    assert [len(some.won) for some in taken] == [1, 0]
    schedulers[1].start()
    wait_done(db)
    assert len(set(pins(assigned(db, "h0")))) == 4


def test_cpus_come_back_with_their_server(db: Database, schedulers: list[Scheduler]) -> None:
    tell(db, host("h0", nodes=1, cores=1))
    schedulers[0].start()
    (first,) = ask(db, 1, DEDICATED)
    wait_done(db)
    assert set(pins(assigned(db, "h0"))) == {("h0", 0), ("h0", 1)}
    db.transact(lambda session: servers.delete(session, first, ORIGIN, project_id="p", admin=False))
    gone: wire.Observation = {"host": "h0", "server_uuid": first, "state": "gone", "detail": "", "fault": None}
    db.transact(lambda session: assignments.observe(session, gone, 1))
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(NumaPlacement)) == 0
    (second,) = ask(db, 1, DEDICATED)
    wait_done(db)
    assert [one["server_uuid"] for one in assigned(db, "h0")] == [second]
    with Fleet(db).reading() as picture:
        (state,) = picture.numa.host(picture.slot_of_uuid[host("h0")["node_uuid"]])
    assert state.free == frozenset()


@on_sqlite
def test_devices_are_on_the_nodes_of_the_server(db: Database, schedulers: list[Scheduler]) -> None:
    tell(db, host("h0", gpus=4, cores=2))
    schedulers[0].start()
    ask(db, 4, {**DEDICATED, "resources1:VGPU": "1", "hw:pci_numa_affinity_policy": "required"})
    wait_done(db)
    found = assigned(db, "h0")
    assert len(found) == 4
    for one in found:
        gpu = next(device["provider_name"] for device in one["devices"] if device["group"] == "1")
        assert one["numa"][0]["node"] == int(gpu[-1]) % 2
    # Two GPUs of one node for a server that is on one node: there is no such pair left.
    ask(db, 1, {**DEDICATED, "resources1:VGPU": "1", "hw:pci_numa_affinity_policy": "required"}, vcpus=1)
    wait_done(db)
    assert len(assigned(db, "h0")) == 4


@on_sqlite
def test_too_few_for_min_count_hold_nothing(db: Database, schedulers: list[Scheduler]) -> None:
    tell(db, host("h0", nodes=1, cores=2))
    schedulers[0].start()
    ask(db, 3, DEDICATED, least=3)
    wait_done(db)
    assert assigned(db, "h0") == []
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(NumaPlacement)) == 0
        assert set(session.scalars(select(Server.numa))) == {None}


@on_sqlite
def test_the_explanation_says_how_many_cpus_were_free_on_one_node(db: Database, schedulers: list[Scheduler]) -> None:
    schedulers[0]._conf.set_override("filters", ["NUMATopologyFilter"], group="scheduler")
    scheduler = Scheduler(schedulers[0]._conf, db, Fleet(db), schedulers[0]._agents)
    tell(db, host("h0", nodes=2, cores=1))
    scheduler.start()
    ask(db, 1, DEDICATED, vcpus=3)
    wait_done(db)
    scheduler.stop()
    with db.reading() as session:
        explanation = session.scalars(select(Decision.explanation)).one()
        fault = session.scalars(select(Server.fault)).one()
    (stage,) = [stage for stage in explanation["stages"] if stage["kind"] == "filter"]
    assert stage["reason"] == "dedicated CPUs asked on one node: 3, most free 2"
    assert stage["most_free_on"] == "h0 node 0"
    assert "NUMATopologyFilter removed 1 (dedicated CPUs asked on one node: 3, most free 2)" in (fault or {})["message"]


@on_sqlite
def test_reports_that_make_no_sense_are_refused_and_others_followed(db: Database) -> None:
    tell(db, host("h0"))
    broken = host("h0")
    broken["numa"]["nodes"][1]["node"] = 0
    with pytest.raises(errors.InvalidError, match="two nodes have the same number"):
        tell(db, broken)
    twice = host("h0")
    twice["numa"]["nodes"][1]["shared_cpus"] = [0]
    with pytest.raises(errors.InvalidError, match="CPU 0 is there twice"):
        tell(db, twice)
    fleet = Fleet(db)
    with fleet.reading() as picture:
        slot = picture.slot_of_uuid[broken["node_uuid"]]
        assert Counter(len(state.free) for state in picture.numa.host(slot)) == {8: 2}
    without = host("h0")
    del without["numa"]
    tell(db, without)
    with fleet.reading() as picture:
        assert picture.numa.host(slot) == ()
    with db.reading() as session:
        assert session.scalar(select(func.count()).select_from(NumaTopology)) == 0


def test_a_server_that_is_evacuated_holds_processors_of_its_new_host_only(
    db: Database, schedulers: list[Scheduler]
) -> None:
    tell(db, host("h0"), host("h1"))
    (uuid,) = ask(db, 1, DEDICATED)
    schedulers[0].start()
    wait_done(db)
    (before,) = assigned(db, "h0", "h1")
    seen: wire.Observation = {
        **{"host": before["host"], "server_uuid": uuid, "detail": "", "fault": None},
        "state": "active",
    }
    db.transact(lambda session: assignments.observe(session, seen, 1))
    db.transact(lambda session: rebuilding.evacuate_host(session, before["host"], ORIGIN))
    schedulers[0].place({})
    wait_done(db)
    (after,) = assigned(db, "h0", "h1")
    assert {before["host"], after["host"]} == {"h0", "h1"}
    with db.reading() as session:
        (held,) = session.scalars(select(NumaPlacement.placement))
    assert held == after["numa"]
