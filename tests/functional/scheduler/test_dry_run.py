# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A dry run tells what the scheduler then does, and leaves no trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fleets
import patience
import pytest
from sqlalchemy import func, inspect, select, text

from accelsched import conf as options
from accelsched.compute import hosts, servers
from accelsched.db.compute import Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import request as requests
from accelsched.scheduler.decider import Decider
from accelsched.scheduler.service import Scheduler


def contents(db: Database) -> dict[str, list[Any]]:
    with db.reading() as session:
        tables = inspect(session.connection()).get_table_names()
        return {name: sorted(map(str, session.execute(text(f"SELECT * FROM {name}")))) for name in tables}


@pytest.mark.parametrize("count", [1, 9])
def test_servers_go_where_the_dry_run_said(db: Database, schedulers: list[Scheduler], count: int) -> None:
    # No two hosts alike, so that no two score the same and lots decide nothing.
    for number in range(4):
        told = fleets.host_report(f"h{number}", gpus=2, vgpus=2, cpus=16 + number)
        db.transact(lambda session, told=told: hosts.report(session, told))
    flavor = {"name": "f", "vcpus": 1, "ram_mb": 512, "disk_gb": 1, "extra_specs": {"resources:VGPU": "1"}}
    spec = requests.build(flavor, None, project_id="p")  # type: ignore[arg-type]
    conf = options.new()
    options.parse(conf, [], "test")
    fleet = Fleet(db)

    before = contents(db)
    dry_run = Decider(conf, db, fleet).dry_run(spec, count, "seed")
    assert contents(db) == before

    new = servers.NewServers(
        *("p", "u", "vm", {}, flavor, None, None, False, spec.to_dict(), count, count), Origin("req-1", "p", "u")
    )
    db.transact(lambda session: servers.create(session, new))
    schedulers[0].start()

    def done() -> bool:
        with db.reading() as session:
            return session.scalar(select(func.count()).select_from(Request).where(Request.state == "done")) == 1

    patience.wait(done, interval_s=0.02)
    with db.reading() as session:
        placed = session.execute(select(Server.host, Server.devices)).all()
    selections = dry_run.decision.selections
    assert Counter(selection.host.name for selection in selections) == Counter(host for host, _ in placed)
    assert Counter(d["provider_name"] for s in selections for d in s.devices) == Counter(
        device["provider_name"] for _, devices in placed for device in devices
    )
    with fleet.reading() as picture:
        columns = picture.classes["VGPU"]
        free = int((columns.capacity[: columns.size] - columns.used[: columns.size]).sum())
    assert (dry_run.rooms["VGPU"].free_before, dry_run.rooms["VGPU"].free_after) == (16, free)
