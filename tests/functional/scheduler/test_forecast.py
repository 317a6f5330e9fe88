# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A service that has placed a mix keeps room for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import fleets
import patience
from oslo_config import cfg
from sqlalchemy import func, select

from accelsched import conf as options
from accelsched import rpc
from accelsched.compute import hosts, servers
from accelsched.db.compute import Request
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import request as requests
from accelsched.scheduler.decider import Decider
from accelsched.scheduler.outlook import Shape
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.service import Scheduler


def spec_of(vcpus: int, vgpus: int) -> RequestSpec:
    flavor = {"name": "f", "vcpus": vcpus, "ram_mb": 512, "disk_gb": 1, "extra_specs": {"resources:VGPU": str(vgpus)}}
    return requests.build(flavor, None, project_id="p")  # type: ignore[arg-type]


def report(db: Database, name: str, cpus: int = 16, vgpus: int = 8) -> None:
    told = fleets.host_report(name, gpus=1, vgpus=vgpus, cpus=cpus)
    db.transact(lambda session: hosts.report(session, told))


def options_of(**scheduler: Any) -> cfg.ConfigOpts:
    conf = options.new()
    conf.set_default("transport_url", "fake://")
    options.parse(conf, [], "test")
    for name, value in {"poll_interval": 0.05, **scheduler}.items():
        conf.set_override(name, value, group="scheduler")
    return conf


def ask(db: Database, spec: RequestSpec, count: int = 1) -> None:
    rest = (None, None, False, spec.to_dict(), count, count)
    new = servers.NewServers("p", "u", "vm", {}, dict(spec.flavor), *rest, Origin("req-1", "p", "u"))
    db.transact(lambda session: servers.create(session, new))


def wait_done(db: Database) -> None:
    def done() -> bool:
        with db.reading() as session:
            return not session.scalar(select(func.count()).select_from(Request).where(Request.state != "done"))

    patience.wait(done, interval_s=0.02)


def test_small_requests_leave_the_hosts_alone_that_large_ones_came_for(db: Database) -> None:
    conf = options_of(outlook_interval=0.05, weighers=["FragmentationWeigher"])
    fleet = Fleet(db)
    for name in ("filled_1", "filled_2"):
        report(db, name, cpus=16)
    large, small = spec_of(16, 8), spec_of(1, 1)
    ask(db, large, 2)
    scheduler = Scheduler(conf, db, fleet, rpc.AgentClient(rpc.transport(conf)))
    scheduler.start()
    forecast = scheduler._decider.forecast
    assert forecast is not None
    wait_done(db)
    patience.wait(lambda: forecast.outlook is not None, interval_s=0.02)
    scheduler.stop()
    outlook = forecast.outlook
    assert outlook is not None
    assert outlook.mix is not None
    assert outlook.mix.shares == {Shape.of(large.query()): 1.0}

    report(db, "lean", cpus=4)
    report(db, "rich", cpus=16)

    def goes(decider: Decider, seed: str) -> str:
        (selection,) = decider.decide(small, 1, seed).selections
        return selection.host.name

    seeds = [str(number) for number in range(12)]
    # Who has learned nothing draws lots; who has, and every process does by itself, keeps the rich host.
    assert {goes(Decider(conf, db, fleet), seed) for seed in seeds} == {"lean", "rich"}
    learned = Decider(conf, db, fleet)
    assert {learned.dry_run(small, 1, seed).decision.selections[0].host.name for seed in seeds} == {"lean"}
    assert {goes(learned, seed) for seed in seeds} == {"lean"}


def test_a_plan_is_followed_whoever_places(db: Database, schedulers: list[Scheduler]) -> None:
    """Seven and three fill a GPU of ten, three times three do not: each GPU keeps room for one of each."""
    report(db, "seen", vgpus=10)
    schedulers[0].start()
    large, small = spec_of(1, 7), spec_of(1, 3)
    for spec in (large, small):
        ask(db, spec)
    wait_done(db)
    names = {"g0", "g1", "g2"}
    for name in names:
        report(db, name, vgpus=10)
    decider = Decider(options_of(weighers=["PlannedWeigher"]), db, Fleet(db))
    assert decider.forecast is not None
    decider.forecast.refresh()
    used: set[str] = set()
    for number in range(3):
        (selection,) = decider.decide(small, 1, str(number)).selections
        assert selection.host.name in names - used
        used.add(selection.host.name)
        # Another scheduler, which knows of no plan, does it.
        ask(db, dataclasses.replace(small, host=selection.host.name))
        wait_done(db)
    assert {selection.host.name for selection in decider.decide(large, 3, "s").selections} == names

    # A fleet that changed is not planned for by the old plan, and is used.
    report(db, "g3", vgpus=10)
    (selection,) = decider.decide(spec_of(1, 10), 1, "s").selections
    assert selection.host.name == "g3"
