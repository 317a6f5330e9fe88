# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that move: what each side is asked and holds at each step, and what becomes of moves that fail."""

from __future__ import annotations

from typing import Any

import fleets
import patience
import pytest
from sqlalchemy import event, func, select

from accelsched import errors, names, wire
from accelsched.compute import instance_actions, moving, rebuilding, server_groups, servers, states
from accelsched.compute.controller import Controller
from accelsched.db.compute import Host, Migration, Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.db.placement import Allocation, Consumer, ResourceProvider
from accelsched.scheduler import request as requests
from accelsched.scheduler.service import Scheduler

ORIGIN = Origin("req-1", "p", "u")
FAULT: wire.Fault = {"message": "no such thing", "details": ""}
WHOEVER: dict[str, Any] = {"project_id": None, "admin": True}


def flavor(vgpus: int) -> dict[str, Any]:
    size = {"vcpus": vgpus, "ram_mb": 512 * vgpus, "disk_gb": 1}
    return {"name": f"f{vgpus}", **size, "extra_specs": {"resources:VGPU": str(vgpus)}}


def report(name: str, *, moves: bool = True) -> wire.HostReport:
    told = fleets.host_report(name, gpus=1, vgpus=4)
    if moves:
        told["providers"][0]["traits"].append(names.MOVES)
    return told


class Site:
    """Two hosts whose agents say what the test has them say."""

    def __init__(self, db: Database, scheduler: Scheduler) -> None:
        self.db = db
        self.scheduler = scheduler
        self.told: list[str] = []
        self.controller = Controller(db, 3, lambda: scheduler.place({}), lambda _agent, host: self.told.append(host))
        for name in ("h0", "h1"):
            self.controller.report_host({}, report(name))
        scheduler.start()

    def settle(self) -> None:
        self.scheduler.place({})

        def done() -> bool:
            with self.db.reading() as session:
                return not session.scalar(select(func.count()).select_from(Request).where(Request.state != "done"))

        patience.wait(done, interval_s=0.02)

    def running(self, host: str = "h0", vgpus: int = 1, group: str | None = None) -> str:
        hints = {} if group is None else {"group": group}
        asked = {"project_id": "p", "host": host, "hints": hints}
        spec = requests.build(flavor(vgpus), None, **asked)  # type: ignore[arg-type]
        new = servers.NewServers(
            *("p", "u", "vm", {}, flavor(vgpus), None, None, False, spec.to_dict(), 1, 1, ORIGIN), group_uuid=group
        )
        (uuid,) = self.db.transact(lambda session: servers.create(session, new)).uuids
        self.settle()
        self.see(uuid, host, "active")
        return uuid

    def move(self, uuid: str, vgpus: int | None = None, **more: Any) -> None:
        if vgpus is not None:
            with self.db.reading() as session:
                hints = moving.request_of(session, self.server(uuid)).spec["hints"]
            spec = requests.build(flavor(vgpus), None, project_id="p", hints=hints)  # type: ignore[arg-type]
            more |= {"flavor": flavor(vgpus), "spec": spec.to_dict()}
        about = {**WHOEVER, "service_down_time_s": 60, "limits": {"cores": -1, "ram": -1}}
        self.db.transact(lambda session: moving.move(session, uuid, moving.Move(**more), ORIGIN, **about))
        self.settle()

    def decide(self, decision: Any, uuid: str) -> None:
        self.db.transact(lambda session: decision(session, uuid, ORIGIN, **WHOEVER))

    def see(self, uuid: str, host: str, state: str, *, obeyed: bool = False, **more: Any) -> None:
        """Have the agent of a host report a server, with the order that it has there carried out or not."""
        seen: dict[str, Any] = {"host": host, "server_uuid": uuid, "state": state, "detail": "", "fault": None, **more}
        assigned = self.wanted(host).get(uuid)
        if assigned is not None and state != "gone":
            seen.setdefault("incarnation", assigned.get("incarnation", 1))
        if obeyed and assigned is not None:
            seen["order"] = assigned["order"]["number"]
        self.controller.report_observations({}, [seen])  # type: ignore[list-item]

    def wanted(self, host: str) -> dict[str, wire.Assignment]:
        return {wanted["server_uuid"]: wanted for wanted in self.controller.fetch_assignments({}, [host])}

    def agent(self, host: str) -> str:
        with self.db.reading() as session:
            return session.scalars(select(Host.agent).where(Host.name == host)).one()

    def asked(self, host: str, uuid: str) -> tuple[str, str | None] | None:
        """Return whether a host is to keep a server, and what it is to do there."""
        wanted = self.wanted(host).get(uuid)
        if wanted is None:
            return None
        return wanted["desired"], wanted["order"]["power"] if "order" in wanted else None

    def server(self, uuid: str) -> Server:
        with self.db.reading() as session:
            return session.scalars(select(Server).where(Server.uuid == uuid)).one()

    def told_state(self, uuid: str) -> tuple[str, str | None]:
        state = states.of(self.server(uuid))
        return state.status, state.task_state

    def migration(self) -> Migration:
        with self.db.reading() as session:
            return session.scalars(select(Migration).order_by(Migration.id.desc()).limit(1)).one()

    def held(self) -> dict[str, dict[str, int]]:
        """Return how many vGPUs each kind of consumer holds from each host."""
        with self.db.reading() as session:
            rows = session.execute(
                select(Consumer.consumer_type, ResourceProvider.name, Allocation.used)
                .join(Allocation, Allocation.consumer_id == Consumer.id)
                .join(ResourceProvider, ResourceProvider.id == Allocation.provider_id)
                .where(ResourceProvider.name.like("%_gpu_%"))
            ).all()
        held: dict[str, dict[str, int]] = {}
        for kind, name, used in rows:
            held.setdefault(str(kind), {})[name.split("_")[0]] = used
        return held

    def actions(self, uuid: str) -> list[tuple[str, bool, str | None]]:
        with self.db.reading() as session:
            listed = instance_actions.list_page(session, self.server(uuid).id)
            return [(row.action, row.finished_at is not None, (row.fault or {}).get("message")) for row in listed]

    def verify(self, uuid: str) -> None:
        """Have a server come to h1, where it waits for its owner's word."""
        self.see(uuid, "h0", "stopped", obeyed=True)
        self.see(uuid, "h1", "active", obeyed=True)
        assert self.told_state(uuid) == ("VERIFY_RESIZE", None)


@pytest.fixture
def site(db: Database, schedulers: list[Scheduler]) -> Site:
    return Site(db, schedulers[0])


def test_both_sides_are_held_until_a_resize_is_confirmed(site: Site) -> None:
    uuid = site.running()
    site.move(uuid, vgpus=2)
    assert site.told_state(uuid) == ("RESIZE", "resize_migrating")
    assert site.held() == {"MIGRATION": {"h0": 1}, "INSTANCE": {"h1": 2}}
    assert site.asked("h0", uuid) == ("active", "aside")
    assert site.asked("h1", uuid) is None  # not before it is stopped there

    site.see(uuid, "h0", "stopped", obeyed=True)
    assert site.told_state(uuid) == ("RESIZE", "resize_finish")
    assert (site.asked("h0", uuid), site.asked("h1", uuid)) == (("active", "aside"), ("active", "running"))
    assert site.wanted("h1")[uuid]["flavor"]["vcpus"] == 2
    assert site.wanted("h0")[uuid]["flavor"]["vcpus"] == 1
    assert site.wanted("h0")[uuid]["devices"] != site.wanted("h1")[uuid]["devices"]
    assert site.wanted("h1")[uuid]["origin"] == {"host": "h0", "agent": site.agent("h0")}
    assert site.told == ["h1"]

    site.see(uuid, "h1", "active", obeyed=True)
    assert site.told_state(uuid) == ("VERIFY_RESIZE", None)
    assert "origin" not in site.wanted("h1")[uuid]  # its files are there now
    assert site.held() == {"MIGRATION": {"h0": 1}, "INSTANCE": {"h1": 2}}
    assert site.actions(uuid)[0] == ("resize", True, None)

    site.decide(moving.confirm, uuid)
    assert site.asked("h0", uuid) == ("deleted", "aside")
    site.see(uuid, "h0", "gone")
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert site.held() == {"INSTANCE": {"h1": 2}}
    assert site.asked("h0", uuid) is None
    assert site.migration().status == "confirmed"
    assert site.actions(uuid)[0] == ("confirmResize", True, None)


def test_a_resize_that_is_taken_back_leaves_the_server_as_it_was(site: Site) -> None:
    uuid = site.running()
    before = site.server(uuid)
    site.move(uuid, vgpus=2)
    site.verify(uuid)
    site.decide(moving.revert, uuid)
    assert site.told_state(uuid) == ("REVERT_RESIZE", "resize_reverting")
    assert (site.asked("h0", uuid), site.asked("h1", uuid)) == (("active", "aside"), ("deleted", "running"))
    site.see(uuid, "h1", "active", obeyed=True)  # said before the agent heard of it
    assert site.server(uuid).host == "h1"
    site.see(uuid, "h1", "gone")
    assert (site.asked("h0", uuid), site.asked("h1", uuid)) == (("active", "running"), None)
    site.see(uuid, "h0", "active", obeyed=True)
    after = site.server(uuid)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert (after.host, after.flavor, after.devices) == ("h0", before.flavor, before.devices)
    assert site.held() == {"INSTANCE": {"h0": 1}}
    assert site.migration().status == "reverted"
    assert site.actions(uuid)[0] == ("revertResize", True, None)


def test_who_asks_while_a_server_comes_back_is_told_of_it(site: Site) -> None:
    uuid = site.running()
    site.move(uuid, vgpus=2)
    site.verify(uuid)
    site.decide(moving.revert, uuid)
    back: list[str] = []

    def comes_back(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "FROM servers" in statement and not back:
            back.append(uuid)
            site.see(uuid, "h1", "gone")

    event.listen(site.db.engine, "after_cursor_execute", comes_back)
    assert site.asked("h0", uuid) == ("active", "aside")
    assert site.asked("h0", uuid) == ("active", "running")


def test_a_move_that_finds_no_host_leaves_the_server_as_it_is_and_says_why(site: Site) -> None:
    uuid = site.running()
    site.move(uuid, vgpus=5)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert site.held() == {"INSTANCE": {"h0": 1}}
    assert site.migration().status == "error"
    action, finished, fault = site.actions(uuid)[0]
    assert (action, finished) == ("resize", True)
    assert "No valid host" in str(fault)


def test_a_server_that_cannot_be_built_where_it_goes_runs_again_where_it_was(site: Site) -> None:
    uuid = site.running()
    site.move(uuid)
    site.see(uuid, "h0", "stopped", obeyed=True)
    site.see(uuid, "h1", "error", fault=FAULT)
    assert site.held() == {"INSTANCE": {"h0": 1}}
    assert site.asked("h0", uuid) == ("active", "running")
    assert site.asked("h1", uuid) is None
    site.see(uuid, "h1", "error", fault=FAULT, incarnation=2)  # said twice
    site.see(uuid, "h0", "active", obeyed=True)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert site.migration().status == "error"
    assert site.actions(uuid)[0] == ("migrate", True, FAULT["message"])
    site.move(uuid)
    site.see(uuid, "h0", "stopped", obeyed=True)
    # Whatever the first attempt may have left there is not this one's.
    assert (site.wanted("h0")[uuid].get("incarnation", 1), site.wanted("h1")[uuid]["incarnation"]) == (1, 3)


def test_a_server_that_can_be_started_on_neither_side_is_an_error_with_the_reason(site: Site) -> None:
    uuid = site.running()
    site.move(uuid)
    site.see(uuid, "h0", "stopped", obeyed=True)
    site.see(uuid, "h1", "error", fault=FAULT)
    site.see(uuid, "h0", "stopped", obeyed=True, order_fault={"message": "nor here", "details": ""})
    server = site.server(uuid)
    assert (server.state, server.fault and server.fault["message"], server.task) == ("error", "nor here", None)
    assert site.held() == {"INSTANCE": {"h0": 1}}


@pytest.mark.parametrize("first", ["h0", "h1"])
def test_a_server_that_is_deleted_while_it_waits_leaves_nothing_on_either_side(site: Site, first: str) -> None:
    uuid = site.running()
    site.move(uuid, vgpus=2)
    site.verify(uuid)
    site.db.transact(lambda session: servers.delete(session, uuid, ORIGIN, **WHOEVER))
    assert {site.asked(host, uuid)[0] for host in ("h0", "h1")} == {"deleted"}  # type: ignore[index]
    for host in ("h0", "h1") if first == "h0" else ("h1", "h0"):
        assert site.server(uuid).deleted_at is None
        site.see(uuid, host, "gone")
    assert site.server(uuid).deleted_at is not None
    assert site.held() == {}


@pytest.mark.parametrize("verdict", [moving.confirm, moving.revert])
def test_a_resize_on_the_same_host_holds_both_sizes_until_the_word(site: Site, verdict: Any) -> None:
    uuid = site.running()
    with site.db.reading() as session:
        other = session.scalars(select(Host).where(Host.name == "h1")).one().name
    site.running(other, vgpus=4)  # so that there is no other place
    site.move(uuid, vgpus=2, same_host=True)
    order = site.wanted("h0")[uuid]["order"]
    assert (order["power"], order["reboot"]) == ("running", "soft")
    assert site.held()["MIGRATION"] == {"h0": 1}
    kept = {"id": site.migration().uuid, "restore": False}
    assert site.wanted("h0")[uuid]["kept_disk"] == kept
    site.see(uuid, "h0", "active", obeyed=True)
    assert site.told_state(uuid) == ("VERIFY_RESIZE", None)
    site.decide(verdict, uuid)
    if verdict is moving.revert:
        assert site.wanted("h0")[uuid]["flavor"]["vcpus"] == 1
        assert site.wanted("h0")[uuid]["kept_disk"] == {**kept, "restore": True}
        assert site.held() == {"MIGRATION": {"h0": 1}, "INSTANCE": {"h0": 2, "h1": 4}}  # until it runs on less
        site.see(uuid, "h0", "active", obeyed=True)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert "MIGRATION" not in site.held()
    assert "kept_disk" not in site.wanted("h0")[uuid]
    assert site.wanted("h0")[uuid]["flavor"]["vcpus"] == (2 if verdict is moving.confirm else 1)


def test_a_host_whose_agent_is_of_an_earlier_release_takes_no_part(site: Site) -> None:
    uuid = site.running()
    site.controller.report_host({}, report("h1", moves=False))
    site.move(uuid)
    assert "No valid host" in str(site.actions(uuid)[0][2])
    site.controller.report_host({}, report("h0", moves=False))
    with pytest.raises(errors.ConflictError, match="cannot hand servers over"):
        site.move(uuid)
    assert site.told_state(uuid) == ("ACTIVE", None)


def test_a_server_that_was_stopped_is_so_after_its_move(site: Site) -> None:
    uuid = site.running()
    site.see(uuid, "h0", "stopped")
    site.move(uuid)
    assert site.told_state(uuid) == ("RESIZE", "resize_migrating")
    site.see(uuid, "h0", "stopped", obeyed=True)
    assert site.asked("h1", uuid) == ("active", "stopped")
    site.see(uuid, "h1", "active")  # built, and not stopped yet
    assert site.told_state(uuid) == ("RESIZE", "resize_finish")
    site.see(uuid, "h1", "stopped", obeyed=True)
    assert site.told_state(uuid) == ("VERIFY_RESIZE", None)
    site.decide(moving.confirm, uuid)
    site.see(uuid, "h0", "gone")
    assert site.told_state(uuid) == ("SHUTOFF", None)


def group_of(site: Site, policy: str) -> str:
    wanted = {"project_id": "p", "user_id": "u", "name": "g", "policy": policy, "max_server_per_host": None}
    return site.db.transact(lambda session: server_groups.create(session, **wanted).group.uuid)  # type: ignore[arg-type]


def test_members_that_are_kept_apart_are_so_on_both_sides_of_a_move(site: Site) -> None:
    group = group_of(site, "anti-affinity")
    uuid = site.running("h0", group=group)
    site.move(uuid, vgpus=2, same_host=True, target="h1")
    site.verify(uuid)
    for host in ("h0", "h1"):  # to which it may go back, and where it is
        assert site.server(site.running(host, group=group)).state == "error"
    site.decide(moving.confirm, uuid)
    site.see(uuid, "h0", "gone")
    site.running("h0", group=group)
    site.move(uuid)
    assert "No valid host" in str(site.actions(uuid)[0][2])
    site.move(uuid, vgpus=1, same_host=True)  # beside nobody but itself
    assert site.told_state(uuid) == ("RESIZE", "resize_finish")


def test_members_that_are_kept_together_move_only_alone(site: Site) -> None:
    group = group_of(site, "affinity")
    uuid = site.running("h0", group=group)
    site.move(uuid)
    assert site.told_state(uuid) == ("RESIZE", "resize_migrating")
    other = site.running("h1", group=group)  # where it goes
    site.verify(uuid)
    site.decide(moving.confirm, uuid)
    site.see(uuid, "h0", "gone")
    site.move(other)
    assert "No valid host" in str(site.actions(other)[0][2])


def lose(site: Site, name: str, *, evacuated: bool = False) -> set[str]:
    """Have a host forced down, as an operator does."""

    def force_down(session: Any) -> set[str]:
        session.scalars(select(Host).where(Host.name == name)).one().forced_down = True
        return moving.host_lost(session, name, evacuated=evacuated)

    return site.db.transact(force_down)


def test_a_server_goes_back_from_a_host_that_was_lost_without_its_word(site: Site) -> None:
    uuid = site.running()
    site.move(uuid)
    site.verify(uuid)
    assert lose(site, "h1") == set()  # it is its owner's to say
    assert site.told_state(uuid) == ("VERIFY_RESIZE", None)
    site.decide(moving.revert, uuid)
    assert (site.asked("h0", uuid), site.asked("h1", uuid)) == (("active", "running"), None)
    site.see(uuid, "h0", "active", obeyed=True)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert site.held() == {"INSTANCE": {"h0": 1}}


@pytest.mark.parametrize(("waits_for", "evacuated"), [("files", False), ("word", True), ("removal", False)])
def test_moves_do_not_wait_for_a_destination_that_was_lost(site: Site, waits_for: str, evacuated: bool) -> None:
    uuid = site.running()
    site.move(uuid)
    if waits_for == "files":
        site.see(uuid, "h0", "stopped", obeyed=True)
    else:
        site.verify(uuid)
    if waits_for == "removal":
        site.decide(moving.revert, uuid)
    assert lose(site, "h1", evacuated=evacuated) == {"h0"}
    assert (site.asked("h0", uuid), site.asked("h1", uuid)) == (("active", "running"), None)
    site.see(uuid, "h0", "active", obeyed=True)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert site.held() == {"INSTANCE": {"h0": 1}}
    assert site.migration().status == ("reverted" if waits_for == "removal" else "error")


@pytest.mark.parametrize("first", ["lost", "confirmed"])
def test_a_confirmation_does_not_wait_for_a_source_that_was_lost(site: Site, first: str) -> None:
    uuid = site.running()
    site.move(uuid)
    site.verify(uuid)
    if first == "confirmed":
        site.decide(moving.confirm, uuid)
    lose(site, "h0")
    if first == "lost":
        site.decide(moving.confirm, uuid)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert site.held() == {"INSTANCE": {"h1": 1}}


@pytest.mark.parametrize("evacuated", [True, False])
def test_a_server_that_has_not_left_a_lost_host_is_evacuated_from_it(site: Site, evacuated: bool) -> None:
    uuid = site.running()
    site.move(uuid)
    lose(site, "h0", evacuated=evacuated)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert (site.held(), site.asked("h0", uuid)) == ({"INSTANCE": {"h0": 1}}, ("active", "running"))
    assert site.db.transact(lambda session: rebuilding.evacuate_host(session, "h0", ORIGIN)) == 1
    site.settle()
    assert (site.held(), site.asked("h1", uuid)) == ({"INSTANCE": {"h1": 1}}, ("active", "running"))


def test_a_server_whose_source_is_lost_before_its_files_were_fetched_stays_with_that(site: Site) -> None:
    uuid = site.running()
    site.move(uuid)
    site.see(uuid, "h0", "stopped", obeyed=True)
    assert "lost" not in site.wanted("h1")[uuid]["origin"]
    assert lose(site, "h0") == {"h1"}
    assert site.wanted("h1")[uuid]["origin"]["lost"]
    site.see(uuid, "h1", "error", fault=FAULT)
    assert site.told_state(uuid) == ("ACTIVE", None)
    assert (site.server(uuid).host, site.held()) == ("h0", {"INSTANCE": {"h0": 1}})
    assert (site.migration().status, site.actions(uuid)[0]) == ("error", ("migrate", True, FAULT["message"]))
    assert (site.asked("h0", uuid), site.asked("h1", uuid)) == (("active", "running"), None)


def test_a_server_whose_source_is_lost_before_its_files_were_fetched_is_evacuated_where_that_is_wanted(
    site: Site,
) -> None:
    site.controller = Controller(site.db, 3, lambda: site.scheduler.place({}), lambda agent, host: None, evacuates=True)
    uuid = site.running()
    site.move(uuid)
    site.see(uuid, "h0", "stopped", obeyed=True)
    lose(site, "h0", evacuated=True)
    site.see(uuid, "h1", "error", fault=FAULT)
    site.settle()
    assert (site.server(uuid).host, site.held()) == ("h1", {"INSTANCE": {"h1": 1}})
    assert site.asked("h1", uuid) == ("active", "running")
    assert [(action, why) for action, _, why in site.actions(uuid)][:2] == [
        ("evacuate", None),
        ("migrate", FAULT["message"]),
    ]
    assert site.migration().status == "error"


def test_a_server_whose_files_were_fetched_goes_where_it_was_to_go_and_not_back_to_a_lost_source(site: Site) -> None:
    uuid = site.running()
    site.move(uuid)
    site.see(uuid, "h0", "stopped", obeyed=True)
    lose(site, "h0")
    site.see(uuid, "h1", "active", obeyed=True)
    assert site.told_state(uuid) == ("VERIFY_RESIZE", None)
    with pytest.raises(errors.ConflictError, match="h0, from where it came, is lost"):
        site.decide(moving.revert, uuid)
    site.decide(moving.confirm, uuid)
    assert (site.told_state(uuid), site.held()) == (("ACTIVE", None), {"INSTANCE": {"h1": 1}})


def test_a_move_that_no_scheduler_has_taken_up_is_over_when_its_source_is_lost(site: Site) -> None:
    uuid = site.running()
    about = {**WHOEVER, "service_down_time_s": 60, "limits": {"cores": -1, "ram": -1}}

    def move_and_lose(session: Any) -> None:
        moving.move(session, uuid, moving.Move(), ORIGIN, **about)
        session.scalars(select(Host).where(Host.name == "h0")).one().forced_down = True
        session.flush()
        moving.host_lost(session, "h0", evacuated=False)

    site.db.transact(move_and_lose)
    site.settle()
    assert (site.migration().status, site.server(uuid).power_order) == ("error", None)
    assert (site.told_state(uuid), site.server(uuid).host) == (("ACTIVE", None), "h0")
    assert (site.held(), site.asked("h1", uuid)) == ({"INSTANCE": {"h0": 1}}, None)
    assert "which the server had not left" in str(site.actions(uuid)[0][2])
