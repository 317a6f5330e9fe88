# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Server groups, zones and failed builds, from request to claim, on the three databases."""

from __future__ import annotations

import datetime

import fleets
import patience
import pytest
from sqlalchemy import func, select, update

from accelsched import errors, wire
from accelsched.compute import aggregates, assignments, hosts, server_groups, servers
from accelsched.compute.heartbeats import Heartbeats
from accelsched.db.base import utcnow
from accelsched.db.compute import Heartbeat, Host, Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.scheduler import claim
from accelsched.scheduler import request as requests
from accelsched.scheduler.service import Scheduler


def wait_done(db: Database) -> None:
    def done() -> bool:
        with db.reading() as session:
            return not session.scalar(select(func.count()).select_from(Request).where(Request.state != "done"))

    patience.wait(done, interval_s=0.02)


def report(db: Database, *reports: wire.HostReport) -> None:
    for told in reports:
        db.transact(lambda session, told=told: hosts.report(session, told))


def ask_in(db: Database, count: int, group: str | None, zone: str | None = None) -> list[str]:
    """Ask for plain servers as the API would write it down."""
    flavor: wire.FlavorSpec = {"name": "f", "vcpus": 1, "ram_mb": 512, "disk_gb": 1, "extra_specs": {}}
    hints = {} if group is None else {"group": group}
    spec = requests.build(flavor, None, project_id="p", hints=hints, availability_zone=zone)
    new = servers.NewServers(
        *("p", "u", "vm", {}, dict(flavor), None, None, False, spec.to_dict(), 1, count),
        origin=Origin("req-1", "p", "u"),
        group_uuid=group,
    )
    return db.transact(lambda session: servers.create(session, new)).uuids


def group_of(db: Database, policy: str, most: int | None = None) -> str:
    return db.transact(
        lambda session: (
            server_groups.create(
                session, project_id="p", user_id="u", name="g", policy=policy, max_server_per_host=most
            ).group.uuid
        )
    )


def hosts_of(db: Database, uuids: list[str]) -> list[str]:
    with db.reading() as session:
        query = select(Server.host).where(Server.uuid.in_(uuids), Server.host.is_not(None))
        return list(session.scalars(query))


@pytest.mark.parametrize(("policy", "most", "placed"), [("anti-affinity", None, 6), ("anti-affinity", 2, 12)])
def test_schedulers_that_place_members_of_a_group_at_once_keep_them_apart(
    db: Database, schedulers: list[Scheduler], policy: str, most: int | None, placed: int
) -> None:
    report(db, *(fleets.host_report(f"h{n}", gpus=0) for n in range(6)))
    group = group_of(db, policy, most)
    asked = [uuid_ for _ in range(7) for uuid_ in ask_in(db, 2, group)]
    for scheduler in schedulers:
        scheduler.start()
    wait_done(db)
    found = hosts_of(db, asked)
    assert len(found) == placed
    assert max(found.count(host) for host in found) == (most or 1)


def test_schedulers_that_place_members_of_a_group_at_once_keep_them_together(
    db: Database, schedulers: list[Scheduler]
) -> None:
    report(db, *(fleets.host_report(f"h{n}", gpus=0) for n in range(6)))
    group = group_of(db, "affinity")
    asked = [uuid_ for _ in range(4) for uuid_ in ask_in(db, 2, group)]
    for scheduler in schedulers:
        scheduler.start()
    wait_done(db)
    assert len(hosts_of(db, asked)) == 8
    assert len(set(hosts_of(db, asked))) == 1


def test_what_was_decided_before_another_took_the_host_is_decided_anew(
    db: Database, schedulers: list[Scheduler]
) -> None:
    """The policy is looked at again when a decision is written down, not only when it is made."""
    report(db, fleets.host_report("h0", gpus=0), fleets.host_report("h1", gpus=0))
    group = group_of(db, "anti-affinity")
    first, second = ask_in(db, 1, group), ask_in(db, 1, group)
    with db.reading() as session:
        rows = list(session.scalars(select(Request).order_by(Request.id)))
    spec = requests.RequestSpec.from_dict(rows[0].spec)
    decision = schedulers[0]._decider.decide(spec, 1, "seed")
    for row in rows:
        db.transact(lambda session, row=row: claim.take(session, row, decision.selections))
    assert len(hosts_of(db, first)) == 1
    assert hosts_of(db, second) == []
    schedulers[1].start()
    wait_done(db)
    assert sorted(hosts_of(db, first + second)) == ["h0", "h1"]


def test_a_scheduler_sees_aggregates_hosts_and_heartbeats_as_they_change(
    db: Database, schedulers: list[Scheduler]
) -> None:
    def goes(zone: str | None) -> list[str]:
        uuids = ask_in(db, 1, None, zone)
        schedulers[0].place({})
        wait_done(db)
        return hosts_of(db, uuids)

    report(db, fleets.host_report("h0", gpus=0))
    schedulers[0].start()
    assert goes("az") == []
    report(db, fleets.host_report("h1", gpus=0))
    zone = db.transact(lambda session: aggregates.create(session, "z", "az")).aggregate.id
    assert goes("az") == []
    db.transact(lambda session: aggregates.add_host(session, zone, "h1"))
    assert goes("az") == ["h1"]
    assert goes("nova") == ["h0"]
    with pytest.raises(errors.InvalidError, match="asked for availability zone az"):
        db.transact(lambda session: aggregates.set_metadata(session, zone, {"availability_zone": None}))

    long_ago = utcnow() - datetime.timedelta(hours=1)
    db.transact(lambda session: session.execute(update(Heartbeat).values(seen_at=long_ago)))
    Heartbeats(db).note(["h0"])
    schedulers[0]._decider._knowledge._looked = schedulers[0]._decider._knowledge._looked_at_all = 0.0
    assert goes(None) == ["h0"]


def test_builds_that_fail_are_counted_until_one_succeeds(db: Database, schedulers: list[Scheduler]) -> None:
    report(db, fleets.host_report("h0", gpus=0))
    failed = ask_in(db, 2, None)
    schedulers[0].start()
    wait_done(db)

    def see(uuid_: str, state: str) -> int:
        seen = {"host": "h0", "server_uuid": uuid_, "state": state, "detail": "", "fault": None}
        db.transact(lambda session: assignments.observe(session, seen, 1))  # type: ignore[arg-type]
        with db.reading() as session:
            return session.scalars(select(Host.failed_builds).where(Host.name == "h0")).one()

    assert see(failed[0], "error") == 1
    assert see(failed[0], "error") == 1
    report(db, fleets.host_report("h1", gpus=0))
    later = ask_in(db, 2, None)
    schedulers[0].place({})
    wait_done(db)
    assert hosts_of(db, later) == ["h1", "h1"]
    assert see(failed[1], "active") == 0
