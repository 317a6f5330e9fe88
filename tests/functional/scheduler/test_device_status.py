# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices that disappear and come back, and devices that an operator lets nothing new onto."""

from __future__ import annotations

import fleets
from puppets import Site

from accelsched.compute import devices
from accelsched.db.engine import Database
from accelsched.placement import device_status


def report(site: Site, gpus: int = 1, vgpus: int = 2, *, cpus: int = 16) -> None:
    site.controller.report_host({}, fleets.host_report("h0", gpus=gpus, vgpus=vgpus, cpus=cpus))


def shown(db: Database) -> tuple[str, bool, dict[str, tuple[int, int, int]]] | None:
    """Return a device's status, whether it is disabled, and what it has, has reserved and is used of each class."""
    with db.snapshot() as session:
        found = devices.page(session, host="h0", limit=10)
    if not found:
        return None
    (one,) = found
    stocks = {name: (stock.total, stock.reserved, stock.used) for name, stock in one.device.inventories.items()}
    return one.device.status, one.device.disabled, stocks


def test_a_device_that_is_lost_tells_its_servers_until_it_is_back_or_forgotten_with_them(
    site: Site, db: Database
) -> None:
    (server,) = site.create(host="h0")
    (elsewhere,) = site.create(host="h1")
    report(site, gpus=0)
    assert shown(db) == ("lost", False, {"VGPU": (2, 2, 1)})
    assert site.actions(server)[0][:2] == ("device-lost", True)
    assert "is gone from its host" in str(site.actions(server)[0][2])
    assert [action for action, *_ in site.actions(elsewhere)] == ["create"]
    (refused,) = site.create(host="h0")
    assert site.server(refused).state == "error"
    with db.reading() as session:
        assert device_status.counts(session) == {"enabled": 3, "disabled": 0, "lost": 1}
    report(site, gpus=0, cpus=8)  # told once
    report(site)
    assert shown(db) == ("enabled", False, {"VGPU": (2, 0, 1)})
    assert [action for action, *_ in site.actions(server)] == ["device-back", "device-lost", "create"]
    (taken,) = site.create(host="h0")
    assert site.server(taken).host == "h0"
    report(site, vgpus=1)  # less than is in use
    assert site.actions(server)[0][0] == "device-lost"
    assert "has 1 VGPU, of which 2 are in use" in str(site.actions(server)[0][2])
    report(site)
    assert site.actions(server)[0] == ("device-back", True, None)

    report(site, gpus=0)
    for held in (server, taken):
        db.transact(lambda session, held=held: setattr(session.merge(site.server(held)), "desired", "deleted"))
        site.see(held, "gone")
    report(site, gpus=0, cpus=8)
    assert shown(db) is None  # forgotten with its last server


def test_a_disabled_device_takes_nothing_new_whatever_its_agent_says_or_does_not_see(site: Site, db: Database) -> None:
    (server,) = site.create(host="h0")
    with db.snapshot() as session:
        (found,) = devices.page(session, host="h0", limit=10)
    uuid = found.device.uuid
    for _ in range(2):
        db.transact(lambda session: devices.disable(session, uuid))
    closed = ("disabled", True, {"VGPU": (2, 2, 1)})
    assert shown(db) == closed
    assert site.server(site.create(host="h0")[0]).state == "error"
    report(site, cpus=8)
    assert shown(db) == closed
    report(site, vgpus=4)
    assert shown(db) == ("disabled", True, {"VGPU": (4, 4, 1)})
    report(site, gpus=0)
    assert shown(db) == ("lost", True, {"VGPU": (4, 4, 1)})
    db.transact(lambda session: devices.enable(session, uuid))
    assert shown(db) == ("lost", False, {"VGPU": (4, 4, 1)})  # not before it is back
    db.transact(lambda session: devices.disable(session, uuid))
    report(site)
    assert shown(db) == closed
    assert [action for action, *_ in site.actions(server)] == ["device-back", "device-lost", "create"]
    db.transact(lambda session: devices.enable(session, uuid))
    assert shown(db) == ("enabled", False, {"VGPU": (2, 0, 1)})
    assert site.server(site.create(host="h0")[0]).host == "h0"

    with db.snapshot() as session:
        (spare,) = devices.page(session, host="h2", limit=10)
    db.transact(lambda session: devices.disable(session, spare.device.uuid))
    for gpus in (0, 1):  # nobody has it, and it is gone for a while
        site.controller.report_host({}, fleets.host_report("h2", gpus=gpus, vgpus=2))
    with db.snapshot() as session:
        assert devices.get(session, spare.device.uuid).device.status == "disabled"
