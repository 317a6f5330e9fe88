# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerators that are claimed for a server that is there: what it holds, and what becomes of that."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from puppets import AS_ADMIN, FAULT, ORIGIN, Site

from accelsched import errors
from accelsched.compute import accelerators, moving, orders, rebuilding
from accelsched.placement import allocations

ONE, TWO = (f"bbbbbbbb-0000-4000-8000-00000000000{number}" for number in (1, 2))


@pytest.fixture
def server(site: Site) -> str:
    """A server that runs, with one of its host's two vGPUs."""
    (uuid,) = site.create()
    site.see(uuid, "active")
    return uuid


def chosen(site: Site, uuid: str, accelerator_id: str = ONE, **changes: Any) -> accelerators.Chosen:
    row = site.server(uuid)
    vgpu = next(device for device in row.devices if "VGPU" in device["resources"])
    device = {**vgpu, "group": f"_{accelerator_id}", "resources": {"VGPU": 1}}
    specs = {f"resources_{accelerator_id}:VGPU": "1"}
    made = accelerators.Chosen(accelerator_id, str(row.host), specs, [device], {device["provider_uuid"]: {"VGPU": 1}})
    return dataclasses.replace(made, **changes)


def attach(site: Site, uuid: str, *what: accelerators.Chosen) -> None:
    site.db.transact(lambda session: accelerators.attach(session, uuid, what, ORIGIN, **AS_ADMIN))


def detach(site: Site, uuid: str, *accelerator_ids: str) -> None:
    ids = accelerator_ids or [ONE]
    site.db.transact(lambda session: accelerators.detach(session, uuid, ids, ORIGIN, **AS_ADMIN))


def held(site: Site, uuid: str) -> int:
    with site.db.reading() as session:
        shares = allocations.of_consumer(session, uuid).shares.values()
        return sum(share.resources.get("VGPU", 0) for share in shares)


def states(site: Site, uuid: str) -> list[str]:
    return [device["plug"]["state"] for device in accelerators.plugged(site.server(uuid))]


def test_an_accelerator_is_held_from_its_claim_until_the_agent_says_that_it_is_gone(site: Site, server: str) -> None:
    host = str(site.server(server).host)
    attach(site, server, chosen(site, server))
    assert (held(site, server), states(site, server)) == (2, ["attaching"])
    wanted = site.assigned(host)[server]
    assert wanted["devices"][-1]["plug"] == {"id": ONE, "leaves": False}
    assert wanted["flavor"]["extra_specs"][f"resources_{ONE}:VGPU"] == "1"
    with pytest.raises(errors.ConflictError, match="while an accelerator is attaching"):
        detach(site, server)
    site.see(server, "active", plugs=[])
    site.see(server, "active")
    assert states(site, server) == ["attaching"]
    site.see(server, "active", plugs=[ONE])
    assert (states(site, server), site.actions(server)[0]) == (["attached"], ("attachAccelerator", True, None))
    with pytest.raises(errors.CapacityExceededError):
        attach(site, server, chosen(site, server, TWO))

    detach(site, server)
    assert site.assigned(host)[server]["devices"][-1]["plug"]["leaves"]
    site.see(server, "active", plugs=[ONE])
    assert (held(site, server), states(site, server)) == (2, ["detaching"])
    site.see(server, "active", plugs=[])
    assert (held(site, server), states(site, server)) == (1, [])
    assert site.actions(server)[0] == ("detachAccelerator", True, None)
    with pytest.raises(errors.NotFoundError):
        detach(site, server)


def test_what_cannot_be_attached_is_given_back_and_what_a_guest_keeps_stays(site: Site, server: str) -> None:
    attach(site, server, chosen(site, server))
    site.see(server, "active", plug_faults={ONE: FAULT})
    assert (held(site, server), states(site, server)) == (1, [])
    assert site.actions(server)[0] == ("attachAccelerator", True, FAULT["message"])
    attach(site, server, chosen(site, server, TWO))
    site.see(server, "active", plugs=[TWO])
    detach(site, server, TWO)
    site.see(server, "active", plug_faults={TWO: FAULT})
    assert (held(site, server), states(site, server)) == (2, ["attached"])
    assert site.actions(server)[0] == ("detachAccelerator", True, FAULT["message"])


def test_what_a_guest_lets_go_of_late_is_detached_then_one_at_a_time(site: Site, server: str) -> None:
    host = str(site.server(server).host)
    attach(site, server, chosen(site, server))
    site.see(server, "active", plugs=[ONE])
    site.see(server, "active", plugs=[ONE], let_go=[])
    detach(site, server)
    site.see(server, "active", plug_faults={ONE: FAULT})
    assert states(site, server) == ["attached"]
    site.see(server, "active", plugs=[ONE], let_go=[ONE])
    assert (held(site, server), states(site, server)) == (2, ["detaching"])
    assert site.assigned(host)[server]["devices"][-1]["plug"]["leaves"]
    site.see(server, "active", plugs=[ONE], let_go=[ONE])
    site.see(server, "active", plugs=[])
    assert (held(site, server), states(site, server)) == (1, [])
    assert [site.actions(server)[number][2] for number in (0, 1)] == [None, FAULT["message"]]
    site.see(server, "active", let_go=[ONE])  # told again, by what was on its way


def test_a_server_with_accelerators_stays_on_its_host_unless_that_is_lost(site: Site, server: str) -> None:
    host = str(site.server(server).host)
    attach(site, server, chosen(site, server))
    with pytest.raises(errors.ConflictError, match="Remove them first"):
        site.db.transact(lambda session: orders.give(session, server, orders.SHELVE, ORIGIN, **AS_ADMIN))
    with pytest.raises(errors.ConflictError, match="Remove them first"):
        site.db.transact(
            lambda session: moving.move(
                *(session, server, moving.Move(), ORIGIN), **AS_ADMIN, service_down_time_s=60, limits={}
            )
        )
    site.lose(host)
    site.db.transact(lambda session: rebuilding.evacuate_host(session, host, ORIGIN))
    site.settle()
    assert site.server(server).host != host
    assert (held(site, server), states(site, server)) == (1, [])
    assert ("attachAccelerator", True, "The server's host was lost meanwhile.") in site.actions(server)


def test_what_makes_no_sense_changes_nothing(site: Site, server: str) -> None:
    with pytest.raises(errors.ConflictError, match="not on host"):
        attach(site, server, chosen(site, server, host="elsewhere"))
    site.see(server, "paused")
    with pytest.raises(errors.ConflictError, match="vm_state paused"):
        attach(site, server, chosen(site, server))
    assert (held(site, server), states(site, server)) == (1, [])
