# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Agents of the previous version: served, and not asked what they would leave undone without a word."""

from __future__ import annotations

import uuid
from typing import Any

import fleets
import pytest
from puppets import AS_ADMIN, ORIGIN, Site

from accelsched import errors
from accelsched.compute import accelerators, orders, shelving

IMAGE: dict[str, Any] = {"id": "i", "name": "disk", "disk_format": "qcow2", "size": 1, "properties": {}}


def report(site: Site, host: str, version: str | None, devices: str = "VGPU") -> None:
    told: Any = fleets.host_report(host, gpus=1, vgpus=2)
    if devices == "FPGA":
        told["providers"][1]["inventories"] = {"FPGA": fleets.amounts(1)}
    del told["rpc_version"]
    site.controller.report_host({}, told if version is None else {**told, "rpc_version": version})


def give(site: Site, uuid: str, order: orders.Order) -> None:
    site.db.transact(lambda session: orders.give(session, uuid, order, ORIGIN, **AS_ADMIN))


@pytest.mark.parametrize("order", [orders.RESCUE, orders.CREATE_IMAGE, orders.CREATE_BACKUP, orders.SHELVE])
def test_an_order_that_an_agent_does_not_understand_is_refused_before_anything_happens(
    site: Site, order: orders.Order
) -> None:
    report(site, "h0", None)
    (uuid,) = site.create("h0")
    site.see(uuid, "active")
    before, done = site.server(uuid), site.actions(uuid)
    with pytest.raises(errors.ConflictError, match=r"agent of host h0 speaks RPC version 1\.0, and this takes 1\.1"):
        give(site, uuid, order)
    after = site.server(uuid)
    assert (after.power_order, after.task, site.actions(uuid)) == (before.power_order, before.task, done)
    give(site, uuid, orders.STOP)
    site.see(uuid, "stopped", order=site.assigned("h0")[uuid]["order"]["number"], order_fault=None)
    report(site, "h0", "1.2")
    give(site, uuid, order)


def test_an_accelerator_is_not_attached_by_an_agent_that_knows_nothing_of_it(site: Site) -> None:
    report(site, "h0", "1.0")
    (uuid,) = site.create("h0")
    site.see(uuid, "active")
    with pytest.raises(errors.ConflictError, match=r"speaks RPC version 1\.0, and this takes 1\.1"):
        site.db.transact(lambda session: accelerators.ready(session, uuid, **AS_ADMIN))
    report(site, "h0", "1.1")
    assert site.db.transact(lambda session: accelerators.ready(session, uuid, **AS_ADMIN)).uuid == uuid


def test_a_server_whose_fpga_is_to_be_programmed_goes_where_that_is_understood(site: Site) -> None:
    for number, version in enumerate(["1.0", None, "1.1", "1.0"]):
        report(site, f"h{number}", version, devices="FPGA")
    programmed = {"resources:FPGA": "1", "accel:function_id": str(uuid.uuid4())}
    (uuid_,) = site.create(extra_specs=programmed)
    assert site.server(uuid_).host == "h2"
    (uuid_,) = site.create(extra_specs=programmed)
    assert site.server(uuid_).host is None
    (uuid_,) = site.create(extra_specs={"resources:FPGA": "1"})
    assert site.server(uuid_).host in {"h0", "h1", "h3"}


def test_a_server_is_unshelved_where_its_disk_is_understood(site: Site) -> None:
    (uuid,) = site.create("h0")
    site.see(uuid, "active")
    give(site, uuid, orders.SHELVE)
    site.see(uuid, "stopped", order=site.assigned("h0")[uuid]["order"]["number"], order_fault=None)
    site.see(uuid, "gone")
    for host in ("h0", "h1", "h2"):
        report(site, host, "1.0")
    wanted = shelving.Unshelve(IMAGE)
    site.db.transact(lambda session: shelving.unshelve(session, uuid, wanted, ORIGIN, **AS_ADMIN))
    site.settle()
    assert site.server(uuid).host == "h3"


@pytest.mark.parametrize(("version", "refusal"), [("2.0", errors.ConflictError), ("new", errors.InvalidError)])
def test_an_agent_of_another_major_version_takes_no_part(site: Site, version: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal, match=version):
        report(site, "h0", version)
