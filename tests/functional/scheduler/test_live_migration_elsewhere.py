# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Live migration to another host than the first that was chosen, which turned out not to fit before anything moved."""

from __future__ import annotations

from typing import Any

import pytest
from live_moves import FAULT, awaited, go, migration, obeyed, power, report, running, state
from puppets import ORIGIN, Site
from sqlalchemy import select, update

from accelsched import wire
from accelsched.compute import instance_actions, live_migration
from accelsched.compute.live_migration import Wanted
from accelsched.compute.silent_targets import SilentTargets
from accelsched.db.base import utcnow
from accelsched.db.compute import Heartbeat, Host

# What has nothing to do with the kind of database.
on_sqlite = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
UNFIT: wire.Fault = {**FAULT, "unfit_target": True}


def hosts_of(site: Site, count: int) -> None:
    for number in range(count):
        report(site, f"h{number}")


def target(site: Site) -> str:
    found = migration(site).dest_host
    assert found is not None
    return found


def tried(site: Site, uuid: str) -> list[tuple[str, str]]:
    """Return the hosts that the last migration was tried on in vain, and why, as the server's action tells them."""
    with site.db.reading() as session:
        action = instance_actions.list_page(session, site.server(uuid).id)[0]
        return [(one["host"], one["message"]) for one in live_migration.tried_for(session, action)]


def on_its_way(site: Site, *, hosts: int, wanted: Wanted = Wanted(None)) -> str:  # noqa: B008
    """Have a server go to one of some hosts besides its own."""
    hosts_of(site, hosts + 1)
    uuid = running(site)
    go(site, uuid, wanted)
    return uuid


def not_ready(site: Site, uuid: str) -> str:
    """Have the destination's agent say that it cannot make ready for the server; return where that was."""
    unfit = target(site)
    awaited(site, uuid, "error", unfit)
    site.settle()
    return unfit


def test_the_next_host_is_claimed_when_the_first_cannot_make_ready_and_the_first_is_free_again(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    before, number = site.assigned(target(site))[uuid]["incarnation"], migration(site).id
    unfit = not_ready(site, uuid)
    assert {unfit, target(site)} == {"h1", "h2"}
    assert state(site, uuid) == ("MIGRATING", "migrating", "h0")
    assert (migration(site).id, migration(site).status) == (number, "preparing")
    assert (site.holds_from(uuid), site.holds_from(migration(site).uuid)) == ({target(site)}, {"h0"})
    assert uuid not in site.assigned(unfit)
    assert ("agent", unfit) in site.told
    assert site.assigned(target(site))[uuid]["incarnation"] > before
    assert tried(site, uuid) == [(unfit, "the hypervisor could not start the server")]
    assert site.actions(uuid)[0] == ("live-migration", False, None)

    awaited(site, uuid, "awaited", target(site))
    there = target(site)
    obeyed(site, uuid, "stopped")
    assert state(site, uuid) == ("ACTIVE", None, there)
    assert (migration(site).status, migration(site).fault) == ("completed", None)
    assert site.actions(uuid)[0] == ("live-migration", True, None)
    assert tried(site, uuid) == [(unfit, "the hypervisor could not start the server")]


def test_the_next_host_is_claimed_when_the_source_finds_the_first_unfit_before_libvirt_has_begun(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    unfit = target(site)
    awaited(site, uuid, "awaited", unfit)
    number = site.assigned("h0")[uuid]["order"]["number"]
    obeyed(site, uuid, "active", UNFIT)
    site.settle()
    assert (migration(site).status, {unfit, target(site)}) == ("preparing", {"h1", "h2"})
    assert power(site, "h0", uuid) == "running"
    assert site.holds_from(uuid) == {target(site)}
    assert uuid not in site.assigned(unfit)
    awaited(site, uuid, "awaited", target(site))
    order = site.assigned("h0")[uuid]["order"]
    assert (order["number"], order["power"], order["live"]["host"]) == (number + 2, "away", target(site))
    site.see(uuid, "active", "h0", order=number, order_fault=UNFIT)  # once more, of the order before
    assert migration(site).status == "running"


def test_what_fails_once_libvirt_has_begun_is_not_tried_elsewhere(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    awaited(site, uuid, "awaited", target(site))
    obeyed(site, uuid, "active", FAULT)
    site.settle()
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "error")
    assert site.holds_from(uuid) == {"h0"}


@on_sqlite
def test_one_that_stopped_meanwhile_is_not_tried_elsewhere(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    awaited(site, uuid, "awaited", target(site))
    obeyed(site, uuid, "stopped", UNFIT)
    site.settle()
    assert (state(site, uuid), migration(site).status) == (("SHUTOFF", None, "h0"), "error")


@on_sqlite
def test_a_host_that_is_named_is_the_only_one(site: Site) -> None:
    uuid = on_its_way(site, hosts=2, wanted=Wanted("h1"))
    not_ready(site, uuid)
    assert (state(site, uuid), migration(site).status, target(site)) == (("ACTIVE", None, "h0"), "error", "h1")
    assert site.holds_from(uuid) == {"h0"}


def test_as_many_hosts_are_tried_as_for_builds_and_all_are_told(site: Site) -> None:
    uuid = on_its_way(site, hosts=4)
    unfit = [not_ready(site, uuid) for _ in range(3)]
    assert len(set(unfit)) == 3
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "error")
    assert (site.holds_from(uuid), site.holds_from(migration(site).uuid)) == ({"h0"}, set())
    assert [host for host, _ in tried(site, uuid)] == unfit
    _, finished, why = site.actions(uuid)[0]
    assert finished
    assert why is not None
    assert all(host in why for host in unfit)


def test_when_no_other_host_has_room_it_stays_and_what_was_tried_is_told(site: Site) -> None:
    uuid = on_its_way(site, hosts=1)
    not_ready(site, uuid)
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "error")
    assert (site.holds_from(uuid), site.holds_from(migration(site).uuid)) == ({"h0"}, set())
    fault = migration(site).fault
    assert fault is not None
    assert "No valid host" in fault["message"]
    assert "h1: the hypervisor could not start the server" in fault["message"]


@on_sqlite
def test_one_that_was_aborted_is_not_tried_elsewhere(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    awaited(site, uuid, "awaited", target(site))
    about: dict[str, Any] = {"project_id": None, "number": str(migration(site).id)}
    site.db.transact(lambda session: live_migration.abort(session, uuid, ORIGIN, early=False, **about))
    obeyed(site, uuid, "active", UNFIT)
    site.settle()
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "cancelled")


def test_a_host_that_is_forced_down_before_it_was_ready_is_not_the_only_one(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    lost = target(site)
    site.lose(lost)
    site.db.transact(lambda session: live_migration.host_lost(session, lost, max_attempts=3))
    site.settle()
    assert (migration(site).status, {lost, target(site)}) == ("preparing", {"h1", "h2"})
    assert site.holds_from(uuid) == {target(site)}


def test_a_host_whose_agent_falls_silent_before_it_was_ready_is_not_waited_for(site: Site) -> None:
    uuid = on_its_way(site, hosts=2)
    silent = target(site)

    targets = SilentTargets(site.db, 60, 3, 1.0, site.settle)
    targets.look()
    assert target(site) == silent
    long_ago = utcnow().replace(year=2000)
    heard = select(Host.id).where(Host.name == silent).scalar_subquery()
    change = update(Heartbeat).where(Heartbeat.host_id == heard).values(seen_at=long_ago)
    site.db.transact(lambda session: session.execute(change))
    targets.look()
    assert (migration(site).status, {silent, target(site)}) == ("preparing", {"h1", "h2"})
    assert "does not answer" in tried(site, uuid)[0][1]
    targets.look()
    assert len(tried(site, uuid)) == 1
