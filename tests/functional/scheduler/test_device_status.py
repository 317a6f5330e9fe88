# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices that disappear and come back, and devices that an operator lets nothing new onto."""

from __future__ import annotations

import dataclasses

import fleets
from puppets import Site
from sqlalchemy import select, update

from accelsched.api.compute import server_views
from accelsched.api.compute.microversion import Version
from accelsched.compute import devices, servers
from accelsched.db.engine import Database
from accelsched.db.placement import Inventory, ResourceProvider
from accelsched.placement import device_status

READER = server_views.Reader("http://x/v2.1", Version(2, 96), True, True, True, 60, "nova")
HUNG = "does not answer"


def report(site: Site, gpus: int = 1, vgpus: int = 2, *, cpus: int = 16, fault: str | None = None) -> None:
    told = fleets.host_report("h0", gpus=gpus, vgpus=vgpus, cpus=cpus)
    if fault is not None:
        told["providers"][1]["fault"] = fault
    site.controller.report_host({}, told)


def fault(site: Site, uuid: str) -> tuple[str, str] | None:
    """Return the message that the server's owner sees, and the details that operators see besides."""
    with site.db.reading() as session:
        shown = servers.get(session, uuid, project_id=None)
    views = [server_views.full(shown, dataclasses.replace(READER, extended=extended)) for extended in (False, True)]
    if "fault" not in views[0]:
        return None
    assert views[0]["fault"].keys() == {"code", "created", "message"}
    return views[0]["fault"]["message"], views[1]["fault"]["details"]


def reserve(db: Database, amount: int) -> None:
    """Have an operator reserve some of h0's device."""
    of_h0 = select(ResourceProvider.id).where(ResourceProvider.name == "h0_gpu_0")
    db.transact(
        lambda session: session.execute(
            update(Inventory).where(Inventory.provider_id.in_(of_h0)).values(reserved=amount)
        )
    )


def shown(db: Database) -> tuple[str, bool, dict[str, tuple[int, int, int]]] | None:
    """Return a device's status, whether it is disabled, and what it has, has reserved and is used of each class."""
    with db.snapshot() as session:
        found = devices.page(session, host="h0", limit=10)
    if not found:
        return None
    (one,) = found
    stocks = {name: (stock.total, stock.reserved, stock.used) for name, stock in one.device.inventories.items()}
    return one.device.status, "disabled" in one.device.marks, stocks


def test_a_device_that_is_lost_tells_its_servers_until_it_is_back_or_forgotten_with_them(
    site: Site, db: Database
) -> None:
    (server,) = site.create(host="h0")
    (elsewhere,) = site.create(host="h1")
    report(site, gpus=0)
    assert shown(db) == ("lost", False, {"VGPU": (2, 2, 1)})
    assert site.actions(server)[0][:2] == ("device-lost", True)
    assert site.actions(server)[0][2] == "h0_gpu_0 is gone from its host"
    with db.reading() as session:
        (found,) = devices.page(session, host="h0", limit=10)
    assert found.fault == "is gone from its host"
    assert fault(site, server) == (
        f"VGPU of resource provider {found.device.uuid} is gone from its host",
        "h0_gpu_0 is gone from its host",
    )
    site.see(server, "active")
    assert (site.server(server).state, fault(site, elsewhere)) == ("active", None)
    assert [action for action, *_ in site.actions(elsewhere)] == ["create"]
    (refused,) = site.create(host="h0")
    assert site.server(refused).state == "error"
    with db.reading() as session:
        assert device_status.counts(session) == {"enabled": 3, "disabled": 0, "unhealthy": 0, "lost": 1}
    report(site, gpus=0, cpus=8)  # told once
    report(site)
    assert shown(db) == ("enabled", False, {"VGPU": (2, 0, 1)})
    assert [action for action, *_ in site.actions(server)] == ["device-back", "device-lost", "create"]
    assert fault(site, server) is None
    (taken,) = site.create(host="h0")
    assert site.server(taken).host == "h0"
    report(site, vgpus=1)  # less than is in use
    assert site.actions(server)[0][0] == "device-lost"
    assert "has 1 VGPU, of which 2 are in use" in str(site.actions(server)[0][2])
    assert "has 1 VGPU, of which 2 are in use" in str(fault(site, taken))
    with db.reading() as session:
        assert devices.count_faults(session) == 1
    report(site)
    assert site.actions(server)[0] == ("device-back", True, None)
    assert fault(site, server) is None
    with db.reading() as session:
        assert devices.count_faults(session) == 0

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


def test_a_device_that_does_not_answer_is_closed_and_its_servers_have_a_fault_until_it_does(
    site: Site, db: Database
) -> None:
    (server,) = site.create(host="h0")
    site.see(server, "active")
    for cpus in (16, 8):
        report(site, fault=HUNG, cpus=cpus)
    assert shown(db) == ("unhealthy", False, {"VGPU": (2, 2, 1)})
    assert [action for action, *_ in site.actions(server)] == ["device-lost", "create"]  # told once
    assert "h0_gpu_0 does not answer" in str(fault(site, server))
    assert site.server(server).state == "active"
    assert site.server(site.create(host="h0")[0]).state == "error"
    with db.reading() as session:
        assert device_status.counts(session) == {"enabled": 3, "disabled": 0, "unhealthy": 1, "lost": 0}
        (found,) = devices.page(session, host="h0", status="unhealthy", limit=10)
    uuid = found.device.uuid

    db.transact(lambda session: devices.disable(session, uuid))
    db.transact(lambda session: devices.enable(session, uuid))
    assert shown(db) == ("unhealthy", False, {"VGPU": (2, 2, 1)})  # not before it answers
    report(site, gpus=0)  # it was reset, and did not come back
    assert shown(db) == ("lost", False, {"VGPU": (2, 2, 1)})
    assert "h0_gpu_0 is gone from its host" in str(fault(site, server))
    report(site)
    assert shown(db) == ("enabled", False, {"VGPU": (2, 0, 1)})
    assert fault(site, server) is None
    assert site.actions(server)[0] == ("device-back", True, None)


def test_a_server_has_the_faults_of_devices_where_it_is(site: Site, db: Database) -> None:
    (server,) = site.create(host="h0")
    report(site, gpus=0)
    assert fault(site, server) is not None

    def move(session: object) -> None:
        moved = session.merge(site.server(server))  # type: ignore[attr-defined]
        moved.host, moved.devices = "h1", []

    db.transact(move)
    assert fault(site, server) is None


def test_what_an_operator_had_reserved_of_a_device_is_reserved_when_it_is_opened_again(
    site: Site, db: Database
) -> None:
    reserve(db, 1)
    with db.snapshot() as session:
        (found,) = devices.page(session, host="h0", limit=10)
    uuid = found.device.uuid
    db.transact(lambda session: devices.disable(session, uuid))
    report(site, vgpus=4)
    assert shown(db) == ("disabled", True, {"VGPU": (4, 4, 0)})
    db.transact(lambda session: devices.enable(session, uuid))
    assert shown(db) == ("enabled", False, {"VGPU": (4, 1, 0)})

    report(site, vgpus=4, fault=HUNG)
    report(site, vgpus=4)
    assert shown(db) == ("enabled", False, {"VGPU": (4, 1, 0)})
    site.create(host="h0")
    report(site, gpus=0)
    report(site, vgpus=4)
    assert shown(db) == ("enabled", False, {"VGPU": (4, 1, 1)})

    db.transact(lambda session: devices.disable(session, uuid))
    reserve(db, 2)  # while it is closed
    report(site, vgpus=4, cpus=8)
    assert shown(db) == ("disabled", True, {"VGPU": (4, 4, 1)})
    db.transact(lambda session: devices.enable(session, uuid))
    assert shown(db) == ("enabled", False, {"VGPU": (4, 2, 1)})
    reserve(db, 4)
    db.transact(lambda session: devices.disable(session, uuid))
    db.transact(lambda session: devices.enable(session, uuid))
    assert shown(db) == ("enabled", False, {"VGPU": (4, 4, 1)})


def test_a_device_that_offers_another_class_than_is_in_use_has_a_fault_and_takes_nothing_new(
    site: Site, db: Database
) -> None:
    (server,) = site.create(host="h0")
    told = fleets.host_report("h0", gpus=1, vgpus=2)
    told["providers"][1]["inventories"] = {"CUSTOM_VGPU_OTHER": fleets.amounts(4)}
    site.controller.report_host({}, told)
    assert "has 0 VGPU, of which 1 are in use" in str(fault(site, server))
    assert (shown(db) or ("",) * 3)[2] == {"VGPU": (2, 2, 1), "CUSTOM_VGPU_OTHER": (4, 0, 0)}
    assert site.server(site.create(host="h0")[0]).state == "error"
    report(site)
    assert fault(site, server) is None
    assert [action for action, *_ in site.actions(server)] == ["device-back", "device-lost", "create"]


def test_a_device_with_less_than_is_in_use_is_well_again_when_a_server_leaves_it(site: Site, db: Database) -> None:
    first, second, third = (site.create(host="h0")[0] for _ in range(3))
    assert site.server(third).state == "error"
    report(site, vgpus=1)
    assert "has 1 VGPU, of which 2 are in use" in str(fault(site, first))
    db.transact(lambda session: setattr(session.merge(site.server(second)), "desired", "deleted"))
    site.see(second, "gone")  # and its agent has nothing new to report
    assert fault(site, first) is None
    assert site.actions(first)[0] == ("device-back", True, None)
    with db.reading() as session:
        assert devices.count_faults(session) == 0
    report(site, vgpus=0)
    assert "has 0 VGPU, of which 1 are in use" in str(fault(site, first))
    report(site, vgpus=0)
    site.see(first, "active")
    assert "has 0 VGPU, of which 1 are in use" in str(fault(site, first))
    assert [action for action, *_ in site.actions(first)][:3] == ["device-lost", "device-back", "device-lost"]


def test_what_else_is_wrong_with_a_device_does_not_end_with_a_server(site: Site, db: Database) -> None:
    (held,), (leaving,) = site.create(host="h0"), site.create(host="h0")
    report(site, fault=HUNG)
    db.transact(lambda session: setattr(session.merge(site.server(leaving)), "desired", "deleted"))
    site.see(leaving, "gone")
    assert HUNG in str(fault(site, held))
    report(site, gpus=0)
    site.see(held, "active")
    assert "is gone from its host" in str(fault(site, held))
