# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers of a :class:`puppets.Site` that go from h0 elsewhere while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fleets
from puppets import ORIGIN, Site
from sqlalchemy import select

from accelsched import names, wire
from accelsched.compute import live_migration, servers, states
from accelsched.compute.live_migration import Wanted
from accelsched.db.compute import Migration
from accelsched.scheduler import request as requests

FAULT: wire.Fault = {"message": "no way", "details": ""}
WHOEVER: dict[str, Any] = {"project_id": None, "admin": True, "service_down_time_s": 60}


def report(
    site: Site, name: str, how: str = "simulated", traits: tuple[str, ...] = (), gpus: int = 1, **hypervisor: Any
) -> wire.HostReport:
    told = fleets.host_report(name, gpus=gpus, vgpus=2)
    told["providers"][0]["traits"].append(names.MOVES_LIVE)
    for device in told["providers"][1:]:
        device["how"] = how
        typed = any(trait.startswith(names.vgpu_type_trait("")) for trait in traits)
        device["traits"] = [*(() if typed else device["traits"]), *traits]
    if hypervisor:
        told["hypervisor"] = {**told["hypervisor"], "type": "QEMU", **hypervisor}  # type: ignore[typeddict-item]
    site.controller.report_host({}, told)
    return told


def two(site: Site, how: str = "simulated", traits: tuple[str, ...] = (), **hypervisor: Any) -> None:
    """Have two hosts of which servers can go while they run."""
    for name in ("h0", "h1"):
        report(site, name, how, traits, **hypervisor)


def running(site: Site, extra_specs: Mapping[str, str] = {"resources:VGPU": "1"}, host: str = "h0") -> str:
    flavor: wire.FlavorSpec = {"name": "f", "vcpus": 1, "ram_mb": 512, "disk_gb": 1, "extra_specs": dict(extra_specs)}
    spec = requests.build(flavor, None, project_id="p", host=host)
    new = servers.NewServers("p", "u", "vm", {}, dict(flavor), None, None, False, spec.to_dict(), 1, 1, ORIGIN)
    (uuid,) = site.db.transact(lambda session: servers.create(session, new)).uuids
    site.settle()
    site.see(uuid, "active")
    return uuid


def go(site: Site, uuid: str, wanted: Wanted = Wanted(None)) -> None:  # noqa: B008
    site.db.transact(lambda session: live_migration.migrate(session, uuid, wanted, ORIGIN, **WHOEVER))
    site.settle()


def awaited(site: Site, uuid: str, state: str = "awaited", host: str = "h1") -> None:
    """Have the destination's agent say that it is ready, or cannot be."""
    site.see(uuid, state, host, incarnation=site.assigned(host)[uuid]["incarnation"])


def obeyed(site: Site, uuid: str, state: str, fault: wire.Fault | None = None) -> None:
    """Have the source's agent say that it has carried out its order, or could not."""
    site.see(uuid, state, "h0", order=site.assigned("h0")[uuid]["order"]["number"], order_fault=fault)


def migration(site: Site) -> Migration:
    with site.db.reading() as session:
        return session.scalars(select(Migration).order_by(Migration.id.desc()).limit(1)).one()


def state(site: Site, uuid: str) -> tuple[str, str | None, str | None]:
    server = site.server(uuid)
    told = states.of(server)
    return told.status, told.task_state, server.host


def power(site: Site, host: str, uuid: str) -> str | None:
    wanted = site.assigned(host).get(uuid)
    return None if wanted is None or "order" not in wanted else wanted["order"]["power"]
