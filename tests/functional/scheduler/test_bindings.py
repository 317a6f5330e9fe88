# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerator requests that are bound to servers: what becomes of them when what their servers have does."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from puppets import AS_ADMIN, FAULT, ORIGIN, Site
from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.accelerator import own_requests, profiles, requests
from accelsched.accelerator.own_requests import Binding
from accelsched.accelerator.requests import AcceleratorRequest
from accelsched.compute import accelerators, rebuilding, servers
from accelsched.compute.accelerators import Chosen, Wanted
from accelsched.db.compute import Host
from accelsched.placement import allocations


@pytest.fixture
def server(site: Site) -> str:
    """A server that runs, on a host with two vGPUs, without one."""
    (uuid_,) = site.create(extra_specs={"hw:cpu_policy": "shared"})
    site.see(uuid_, "active")
    return uuid_


@pytest.fixture
def two(site: Site) -> list[str]:
    """Two requests for a vGPU."""

    def make(session: Session) -> list[AcceleratorRequest]:
        profiles.create(session, name="two", description=None, groups=[{"resources:VGPU": "2"}])
        return own_requests.create(session, project_id="p", profile_name="two", group=None, image_uuid=None, most=2)

    return [one.uuid for one in site.db.transact(make)]


def gpu(site: Site, server: str) -> tuple[str, str]:
    """Return the GPU of a server's host: uuid and name."""
    host = site.server(server).host
    with site.db.reading() as session:
        reported = session.scalars(select(Host).where(Host.name == host)).one()
    return next((key, it["name"]) for key, it in reported.reported.items() if "VGPU" in it["inventories"])


def bind(site: Site, server: str, uuids: Sequence[str]) -> dict[str, str]:
    """Bind requests to a server; return the accelerator that each is to be."""
    device, name = gpu(site, server)
    binding = Binding(server, str(site.server(server).host), dict.fromkeys(uuids, device), "p")
    plugs = {one: str(uuid.uuid4()) for one in uuids}
    _, wanted = site.db.transact(lambda session: own_requests.to_bind(session, binding, plugs, **AS_ADMIN))
    chosen = [_chosen(one, binding.host, device, name) for one in wanted]
    site.db.transact(lambda session: own_requests.bind(session, binding, plugs, chosen, ORIGIN, **AS_ADMIN))
    return plugs


def _chosen(wanted: Wanted, host: str, device: str, name: str) -> Chosen:
    resources = {"VGPU": 1}
    group = accelerators.suffix_of(wanted.id)
    allocation = {"group": group, "provider_uuid": device, "provider_name": name, "resources": resources}
    return Chosen(wanted.id, host, wanted.extra_specs, [allocation], {device: resources})


def release(site: Site, uuids: Sequence[str], *, forget: bool = False) -> None:
    site.db.transact(lambda session: own_requests.release(session, uuids, ORIGIN, forget=forget, **AS_ADMIN))


def states(site: Site) -> list[str]:
    """Return the state of each that is there, oldest first."""
    with site.db.reading() as session:
        found = requests.list_(session, project_id="p", most=10)
    return [one.state for one in reversed(found)]


def held(site: Site, server: str) -> int:
    with site.db.reading() as session:
        shares = allocations.of_consumer(session, server).shares.values()
        return sum(share.resources.get("VGPU", 0) for share in shares)


def test_of_two_that_are_bound_together_one_may_fail_and_be_bound_again(
    site: Site, server: str, two: list[str]
) -> None:
    plugs = bind(site, server, two)
    assert (states(site), held(site, server)) == (["BindStarted", "BindStarted"], 2)
    site.see(server, "active", plug_faults={plugs[two[0]]: FAULT})
    assert (states(site), held(site, server)) == (["BindFailed", "BindStarted"], 1)
    assert site.actions(server)[0] == ("attachAccelerator", True, FAULT["message"])
    site.see(server, "active", plugs=[plugs[two[1]]])
    assert states(site) == ["BindFailed", "Bound"]
    assert site.actions(server)[0] == ("attachAccelerator", True, FAULT["message"])
    again = bind(site, server, two)
    assert (states(site), held(site, server)) == (["BindStarted", "Bound"], 2)
    site.see(server, "active", plugs=[again[two[0]], plugs[two[1]]])
    assert states(site) == ["Bound", "Bound"]
    assert site.actions(server)[0] == ("attachAccelerator", True, None)


def test_an_action_is_over_when_the_last_is_attached_and_when_the_last_is_gone(
    site: Site, server: str, two: list[str]
) -> None:
    first, second = bind(site, server, two).values()
    site.see(server, "active", plugs=[first])
    assert site.actions(server)[0] == ("attachAccelerator", False, None)
    site.see(server, "active", plugs=[first, second])
    assert site.actions(server)[0] == ("attachAccelerator", True, None)
    release(site, two)
    assert states(site) == ["Bound", "Bound"]
    release(site, two)  # asked again, nothing more is to be done
    site.see(server, "active", plugs=[second])
    assert (states(site), site.actions(server)[0]) == (["Unbound", "Bound"], ("detachAccelerator", False, None))
    site.see(server, "active", plugs=[])
    assert (states(site), held(site, server)) == (["Unbound", "Unbound"], 0)
    assert site.actions(server)[0] == ("detachAccelerator", True, None)


def test_what_a_guest_does_not_let_go_of_is_bound_still_and_not_deleted(
    site: Site, server: str, two: list[str]
) -> None:
    plugs = bind(site, server, two)
    with pytest.raises(errors.ConflictError, match="while an accelerator is attaching"):
        release(site, two, forget=True)
    site.see(server, "active", plugs=list(plugs.values()))
    release(site, two, forget=True)
    assert states(site) == ["Deleting", "Deleting"]
    site.see(server, "active", plug_faults={plugs[two[0]]: FAULT})
    assert states(site) == ["Bound", "Deleting"]
    site.see(server, "active", plugs=[plugs[two[0]]])
    assert states(site) == ["Bound"]
    # Whoever detaches it the other way unbinds it as well.
    site.db.transact(
        lambda session: accelerators.detach(session, server, [plugs[two[0]]], ORIGIN, project_id="p", admin=False)
    )
    site.see(server, "active", plugs=[])
    assert states(site) == ["Unbound"]


@pytest.mark.parametrize("attached", [True, False])
def test_a_server_that_is_gone_leaves_no_request_bound(site: Site, server: str, two: list[str], attached: bool) -> None:
    plugs = bind(site, server, two[:1])
    if attached:
        site.see(server, "active", plugs=list(plugs.values()))
    site.db.transact(lambda session: servers.delete(session, server, ORIGIN, **AS_ADMIN))
    with pytest.raises(errors.ConflictError, match="deleting"):
        bind(site, server, two[1:])
    if attached:
        release(site, two[:1], forget=True)  # it goes with the server
        assert states(site) == ["Deleting", "Initial"]
    site.see(server, "gone")
    assert (states(site), held(site, server)) == (["Initial"], 0)
    with pytest.raises(errors.NotFoundError):
        release(site, two[:1])


def test_what_was_lost_with_a_host_is_bound_no_more_and_can_be_bound_again(
    site: Site, server: str, two: list[str]
) -> None:
    plugs = bind(site, server, two)
    site.see(server, "active", plugs=list(plugs.values()))
    release(site, two[1:], forget=True)
    host = str(site.server(server).host)
    site.lose(host)
    site.db.transact(lambda session: rebuilding.evacuate_host(session, host, ORIGIN))
    site.settle()
    assert site.server(server).host != host
    assert states(site) == ["Unbound"]
    site.see(server, "active", incarnation=2)
    again = bind(site, server, two[:1])
    site.see(server, "active", incarnation=2, plugs=list(again.values()))
    assert (states(site), held(site, server)) == (["Bound"], 1)


def test_what_is_bound_elsewhere_or_otherwise_is_not_bound_again(site: Site, server: str, two: list[str]) -> None:
    bind(site, server, two)
    bind(site, server, two)  # the same
    assert held(site, server) == 2
    (other,) = site.create(extra_specs={"hw:cpu_policy": "shared"})
    site.see(other, "active")
    with pytest.raises(errors.ConflictError, match="unbind it first"):
        bind(site, other, two)
    with pytest.raises(errors.QuotaExceededError):
        site.db.transact(
            lambda session: own_requests.create(
                session, project_id="p", profile_name="two", group=0, image_uuid=None, most=1
            )
        )
