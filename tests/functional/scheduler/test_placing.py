# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests to claims on the three databases: what the scheduler's process writes down."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence

import fleets
import patience
import pytest
from sqlalchemy import func, select, update

from accelsched import wire
from accelsched.compute import assignments, hosts, hypervisors, servers
from accelsched.db import feed
from accelsched.db.compute import Decision, Host, Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.db.placement import Allocation, Consumer, Inventory, ResourceProvider
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import claim
from accelsched.scheduler import request as requests
from accelsched.scheduler.decider import Asked
from accelsched.scheduler.pipeline import Decision as Found
from accelsched.scheduler.service import Scheduler, Work

ORIGIN = Origin("req-1", "p", "u")


def ask(db: Database, count: int, min_count: int | None = None, **specs: str) -> list[str]:
    extra = {key.replace("__", ":"): value for key, value in specs.items()}
    flavor: wire.FlavorSpec = {"name": "f", "vcpus": 1, "ram_mb": 512, "disk_gb": 1, "extra_specs": extra}
    spec = requests.build(flavor, None, project_id="p")
    new = servers.NewServers(
        *("p", "u", "vm", {}, dict(flavor), None, None, False, spec.to_dict(), min_count or count, count), ORIGIN
    )
    return db.transact(lambda session: servers.create(session, new)).uuids


def expire_lease(db: Database, request_id: int) -> None:
    expired = update(Request).where(Request.id == request_id).values(lease_until=Request.created_at)
    db.transact(lambda session: session.execute(expired))


def wait_done(db: Database) -> None:
    def done() -> bool:
        with db.reading() as session:
            return not session.scalar(select(func.count()).select_from(Request).where(Request.state != "done"))

    patience.wait(done, interval_s=0.02)


def newest_change(db: Database) -> int:
    with db.reading() as session:
        return feed.head(session)


def check_books(db: Database) -> int:
    """Check that what is used is what is allocated, within what there is; return the number of allocations."""
    with db.reading() as session:
        sums = {
            (provider, class_): used
            for provider, class_, used in session.execute(
                select(Allocation.provider_id, Allocation.class_id, func.sum(Allocation.used)).group_by(
                    Allocation.provider_id, Allocation.class_id
                )
            )
        }
        for row in session.scalars(select(Inventory)):
            assert row.used == sums.get((row.provider_id, row.class_id), 0) <= row.total
        return session.scalar(select(func.count()).select_from(Allocation)) or 0


def report(db: Database, *reports: wire.HostReport) -> None:
    for told in reports:
        db.transact(lambda session, told=told: hosts.report(session, told))


def test_two_schedulers_share_the_work_and_give_nothing_twice(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, *(fleets.host_report(f"h{n}", gpus=2, vgpus=2) for n in range(5)))
    asked = [uuid_ for _ in range(12) for uuid_ in ask(db, 2, resources__VGPU="1")]
    for scheduler in schedulers:
        scheduler.start()
    wait_done(db)
    with db.reading() as session:
        states = dict(session.execute(select(Server.state, func.count()).group_by(Server.state)).all())
        lonely = session.scalars(select(Server.uuid).where(Server.state == "error", Server.host.is_not(None))).all()
    assert states == {"building": 20, "error": 4}
    assert len(asked) == 24
    assert lonely == []
    assert check_books(db) == 20 * 4


def test_a_scheduler_knows_the_hosts_before_it_is_asked(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, *(fleets.host_report(f"h{n}") for n in range(3)))
    schedulers[0].start()
    patience.wait(lambda: len(schedulers[0]._decider._knowledge._table) == 3, interval_s=0.02)


def test_fewer_than_min_count_is_none_at_all(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h", gpus=1, vgpus=4))
    ask(db, 5, 5, resources__VGPU="1")
    schedulers[0].start()
    wait_done(db)
    with db.reading() as session:
        found = session.execute(select(Server.state, Server.host)).all()
        fault = session.scalars(select(Server.fault)).first()
        assert session.scalar(select(func.count()).select_from(Consumer)) == 0
    assert found == [("error", None)] * 5
    assert "Only 4 of 5 servers fit" in fault["message"]
    assert "min_count (5)" in fault["message"]
    assert check_books(db) == 0


def test_a_claim_that_lost_a_race_holds_its_min_count_or_nothing(db: Database, schedulers: list[Scheduler]) -> None:
    """Else two requests could hold half of what each needs, and both fail."""
    report(db, fleets.host_report("h", gpus=1, vgpus=3))
    asked = [ask(db, 2, resources__VGPU="1"), ask(db, 2, resources__VGPU="1")]
    with db.reading() as session:
        rows = list(session.scalars(select(Request).order_by(Request.id)))
    decision = schedulers[0]._decider.decide(requests.RequestSpec.from_dict(rows[0].spec), 2, "seed")
    first, second = (
        db.transact(lambda session, row=row: claim.take(session, row, decision.selections)) for row in rows
    )
    assert [uuid for uuid, _ in first.won] == asked[0]
    assert (first.lost, first.too_few) == (False, False)
    assert (second.won, second.lost, second.too_few) == ([], True, True)
    assert check_books(db) == 2 * 4
    single = ask(db, 1, resources__VGPU="1")
    for scheduler in schedulers:
        scheduler.start()
    wait_done(db)
    with db.reading() as session:
        placed = set(session.scalars(select(Server.uuid).where(Server.host.is_not(None))))
    assert placed == {*asked[0], *single}


def test_servers_deleted_while_they_wait_take_nothing(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h", gpus=1, vgpus=4))
    asked = ask(db, 3, 1, resources__VGPU="1")
    db.transact(lambda session: servers.delete(session, asked[1], ORIGIN, project_id="p", admin=False))
    schedulers[0].start()
    wait_done(db)
    with db.reading() as session:
        consumers = set(session.scalars(select(Consumer.uuid)))
    assert consumers == {asked[0], asked[2]}


def test_a_request_whose_scheduler_died_is_taken_over(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h"))
    ask(db, 1)
    (leased,) = db.transact(schedulers[0]._lease)
    assert db.transact(schedulers[1]._lease) == []
    expire_lease(db, leased.id)
    schedulers[1].start()
    wait_done(db)
    with db.reading() as session:
        assert session.scalars(select(Server.state)).all() == ["building"]


def test_small_requests_that_wait_at_the_same_time_are_placed_together(
    db: Database, schedulers: list[Scheduler]
) -> None:
    """Each on what the ones before it left: there is room for just these, and none has to be decided about again."""
    report(db, *(fleets.host_report(f"h{n}", gpus=1, vgpus=3) for n in range(4)))
    for count in (1, 2, 3, 1, 2, 3):
        ask(db, count, resources__VGPU="1")
    before = newest_change(db)
    assert schedulers[0]._take_some()
    with db.reading() as session:
        assert session.scalars(select(Server.state)).all() == ["building"] * 12
        assert session.scalars(select(Request.state)).all() == ["done"] * 6
        assert session.scalars(select(Decision.sequence)).all() == [0] * 6
    assert newest_change(db) == before + 1
    assert check_books(db) == 12 * 4
    assert not schedulers[0]._take_some()


def test_those_that_lost_races_together_try_again_together(
    db: Database, schedulers: list[Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    report(db, *(fleets.host_report(f"h{n}", gpus=1, vgpus=1) for n in range(4)))
    asked = [*ask(db, 1, resources__VGPU="1"), *ask(db, 1, resources__VGPU="1")]
    decide_each, decided = schedulers[0]._decider.decide_each, []

    def decide_and_be_slower(some: Sequence[Asked]) -> list[Found]:
        decisions = decide_each(some)
        decided.append(len(some))
        if len(decided) == 1:
            for decision in decisions:
                (rival,) = ask(db, 1, resources__VGPU="1")
                with db.reading() as session:
                    row = session.scalars(select(Request).join(Server).where(Server.uuid == rival)).one()
                db.transact(lambda session, row=row, chosen=decision.selections: claim.take(session, row, chosen))
        return decisions

    monkeypatch.setattr(schedulers[0]._decider, "decide_each", decide_and_be_slower)
    assert schedulers[0]._take_some()
    assert decided == [2, 2]
    with db.reading() as session:
        hosts_ = session.scalars(select(Server.host)).all()
        assert session.scalars(select(Server.state).where(Server.uuid.in_(asked))).all() == ["building"] * 2
    assert sorted(hosts_) == ["h0", "h1", "h2", "h3"]
    assert check_books(db) == 4 * 4


def test_one_without_room_among_those_placed_together_fails_alone(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h", gpus=1, vgpus=4))
    asked = [ask(db, count, resources__VGPU="1") for count in (2, 3, 2)]
    assert schedulers[0]._take_some()
    with db.reading() as session:
        states = dict(session.execute(select(Server.uuid, Server.state)).all())
        fault = session.scalars(select(Server.fault).where(Server.uuid == asked[1][0])).one()
    assert {states[uuid_] for uuid_ in (*asked[0], *asked[2])} == {"building"}
    assert {states[uuid_] for uuid_ in asked[1]} == {"error"}
    assert "No valid host was found" in fault["message"]
    assert check_books(db) == 4 * 4


def test_requests_whose_scheduler_died_with_several_are_taken_over(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h"))
    for _ in range(3):
        ask(db, 1)
    leased = db.transact(schedulers[0]._lease)
    assert len(leased) == 3
    assert not schedulers[1]._take_some()
    for request in leased:
        expire_lease(db, request.id)
    assert schedulers[1]._take_some()
    with db.reading() as session:
        assert session.scalars(select(Server.state)).all() == ["building"] * 3


def test_a_request_that_depends_on_others_servers_is_placed_alone(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h"))
    first = ask(db, 1)
    flavor: wire.FlavorSpec = {"name": "f", "vcpus": 1, "ram_mb": 512, "disk_gb": 1, "extra_specs": {}}
    spec = requests.build(flavor, None, project_id="p", hints={"different_host": first})
    new = servers.NewServers(*("p", "u", "vm", {}, dict(flavor), None, None, False, spec.to_dict(), 1, 1), ORIGIN)
    (apart,) = db.transact(lambda session: servers.create(session, new)).uuids
    ask(db, 1)
    assert len(db.transact(schedulers[0]._lease)) == 2
    assert [request.spec["hints"] for request in db.transact(schedulers[1]._lease)] == [{"different_host": first}]
    with db.reading() as session:
        for request in session.scalars(select(Request)).all():
            expire_lease(db, request.id)
    while schedulers[0]._take_some():
        pass
    with db.reading() as session:
        assert session.scalars(select(Server.state).where(Server.uuid == apart)).one() == "error"


@pytest.mark.parametrize(("more_room", "placed"), [(1, 3), (0, 0)])
def test_what_a_scheduler_could_not_place_before_it_died_its_heir_places_or_gives_up(
    db: Database, schedulers: list[Scheduler], more_room: int, placed: int
) -> None:
    report(db, fleets.host_report("h", gpus=1, vgpus=2))
    ask(db, 4, 3, resources__VGPU="1")
    (row,) = db.transact(schedulers[0]._lease)
    spec = requests.RequestSpec.from_dict(row.spec)
    decision = schedulers[0]._decider.decide(spec, 4, "s")
    assert len(decision.selections) == 2
    ((taken, wanted),) = schedulers[0]._write([(Work(row, spec, 4, 0), decision)])
    assert (taken.won, taken.lost, taken.too_few, wanted) == ([], False, True, 4)
    if more_room:
        report(db, fleets.host_report("h2", gpus=1, vgpus=more_room))
    expire_lease(db, row.id)
    schedulers[1].start()
    wait_done(db)
    with db.reading() as session:
        states = dict(session.execute(select(Server.state, func.count()).group_by(Server.state)).all())
        assert session.scalar(select(func.count()).select_from(Consumer)) == placed
    assert states == ({"building": placed, "error": 4 - placed} if placed else {"error": 4})


def test_an_explanation_is_kept_with_what_was_chosen(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h", gpus=2))
    (asked,) = ask(db, 1, resources__VGPU="1")
    schedulers[0].start()
    wait_done(db)
    with db.reading() as session:
        explanation = session.scalars(select(Decision.explanation)).one()
    chosen = explanation["selections"][asked]
    assert chosen["host"] == "h"
    assert [device["provider_name"] for device in chosen["devices"]] == ["h", "h_gpu_0"]
    assert explanation["failure"] is None


def test_a_failure_says_what_would_have_fitted(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h", gpus=1, vgpus=4))
    ask(db, 1, resources1__VGPU="5")
    schedulers[0].start()
    wait_done(db)
    with db.reading() as session:
        explanation = session.scalars(select(Decision.explanation)).one()
        fault = session.scalars(select(Server.fault)).one()
    enough = {"what": "VGPU of group 1", "asked": 5, "enough": 4}
    assert explanation["relaxed"] == {"sets": [[enough]], "complete": True}
    assert "Would fit if: VGPU of group 1 5 -> 4." in fault["message"]


def test_an_agent_is_told_where_on_a_gpu_each_instance_belongs(db: Database, schedulers: list[Scheduler]) -> None:
    report = fleets.host_report("h1", gpus=1)
    gpu = report["providers"][1]
    gpu["inventories"] = {"CUSTOM_SMALL": fleets.amounts(7), "CUSTOM_LARGE": fleets.amounts(2)}
    gpu["capacity_rule"] = {
        "type": "slices",
        "memory_slices": 8,
        "compute_slices": 7,
        "profiles": {
            "CUSTOM_SMALL": {"memory_slices": 1, "compute_slices": 1, "starts": [0, 1, 2, 3, 4, 5, 6]},
            "CUSTOM_LARGE": {"memory_slices": 4, "compute_slices": 3, "starts": [0, 4]},
        },
    }
    db.transact(lambda session: hosts.report(session, report))
    uuids = ask(db, 2, resources1__CUSTOM_SMALL="1", resources2__CUSTOM_SMALL="1")
    uuids += ask(db, 1, resources__CUSTOM_LARGE="1")
    schedulers[0].start()
    wait_done(db)
    with db.reading() as session:
        told = {one["server_uuid"]: one["devices"] for one in assignments.of_hosts(session, ["h1"])}
    starts = {
        (uuid_, device["group"], name): start
        for uuid_ in uuids
        for device in told[uuid_]
        for name, (start,) in device.get("positions", {}).items()
    }
    assert starts == {
        (uuids[0], "1", "CUSTOM_SMALL"): 0,
        (uuids[0], "2", "CUSTOM_SMALL"): 1,
        (uuids[1], "1", "CUSTOM_SMALL"): 2,
        (uuids[1], "2", "CUSTOM_SMALL"): 3,
        (uuids[2], "", "CUSTOM_LARGE"): 4,
    }
    assert all("positions" not in device for device in told[uuids[2]] if "VCPU" in device["resources"])


def test_a_deleted_server_gives_everything_back_when_its_agent_says_it_is_gone(
    db: Database, schedulers: list[Scheduler]
) -> None:
    report(db, fleets.host_report("h", gpus=1))
    (asked,) = ask(db, 1, resources__VGPU="1")
    schedulers[0].start()
    wait_done(db)
    db.transact(lambda session: servers.delete(session, asked, ORIGIN, project_id="p", admin=False))
    with db.reading() as session:
        (assignment,) = assignments.of_hosts(session, ["h"])
    assert assignment["desired"] == "deleted"
    assert check_books(db) == 4
    seen: wire.Observation = {"host": "h", "server_uuid": asked, "state": "gone", "detail": "", "fault": None}
    assert db.transact(lambda session: assignments.observe(session, seen, 1))
    assert not db.transact(lambda session: assignments.observe(session, seen, 1))
    assert check_books(db) == 0
    with db.reading() as session:
        assert assignments.of_hosts(session, ["h"]) == []


def test_an_unchanged_report_changes_nothing_and_a_lost_device_is_reserved_while_in_use(
    db: Database, schedulers: list[Scheduler]
) -> None:
    told = fleets.host_report("h", gpus=1)
    report(db, told)
    with db.reading() as session:
        before = session.execute(select(ResourceProvider.uuid, ResourceProvider.generation)).all()
    report(db, told)
    with db.reading() as session:
        assert session.execute(select(ResourceProvider.uuid, ResourceProvider.generation)).all() == before
    (asked,) = ask(db, 1, resources__VGPU="1")
    schedulers[0].start()
    wait_done(db)
    report(db, fleets.host_report("h", gpus=0))
    with Fleet(db).reading() as picture:
        columns = picture.classes["VGPU"]
        assert columns.inventory(picture.slot_of_uuid[told["providers"][1]["uuid"]]).reserved == 8
        assert not columns.fits(1).any()
    assert asked


def test_a_disabled_host_is_disabled_for_placements_clients_too(db: Database) -> None:
    report(db, fleets.host_report("h"))
    with db.reading() as session:
        service = hypervisors.by_id(session.scalars(select(Host.service_uuid)).one())

    def disable(wanted: bool) -> None:
        db.transact(
            lambda session: hypervisors.update_service(
                session, service, disabled=wanted, disabled_reason="repair", forced_down=None
            )
        )

    fleet = Fleet(db)
    for wanted in (True, True, False):
        disable(wanted)
        with fleet.reading() as picture:
            assert picture.traits.having("COMPUTE_STATUS_DISABLED", picture.slots).any() == wanted
    # What an operator said of the host outlives the agent's reports.
    disable(True)
    report(db, fleets.host_report("h", gpus=2))
    with fleet.reading() as picture:
        assert picture.traits.having("COMPUTE_STATUS_DISABLED", picture.slots).any()


def test_a_host_that_comes_back_as_another_node_is_refused(db: Database) -> None:
    report(db, fleets.host_report("h"))
    impostor = fleets.host_report("h")
    impostor["node_uuid"] = impostor["providers"][0]["uuid"] = str(uuid.uuid4())
    with pytest.raises(Exception, match="known as node"):
        report(db, impostor)


def test_claims_of_many_threads_never_exceed_what_there_is(db: Database) -> None:
    """Sixteen clients run for the last units of one GPU, through the resource database alone."""
    from accelsched import errors
    from accelsched.placement import claims

    told = fleets.host_report("h", gpus=1, vgpus=5)
    report(db, told)
    gpu = told["providers"][1]["uuid"]
    won: list[int] = []

    def client(number: int) -> None:
        change = claims.ConsumerAllocation(str(uuid.uuid4()), "p", "u", {gpu: {"VGPU": 1}}, generation=None)
        try:
            db.transact(lambda session: claims.replace(session, [change]))
        except errors.CapacityExceededError:
            return
        won.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 5
    assert check_books(db) == 5
