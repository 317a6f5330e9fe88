# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Live migration: what each side is asked and holds at each step, what fails and what is refused."""

from __future__ import annotations

from typing import Any

import fleets
import numa_hosts
import os_traits
import pytest
from live_moves import FAULT, awaited, go, migration, obeyed, power, report, running, state, two
from puppets import ORIGIN, Site

from accelsched import errors, names, wire
from accelsched.compute import live_migration, orders
from accelsched.compute.live_migration import Wanted

# What has nothing to do with the kind of database.
on_sqlite = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
BOOKWORM = {"libvirt_version": 9_000_000, "version": 7_002_022, "kernel": "6.1.0-18-amd64"}
NEW = {"libvirt_version": 10_000_000, "version": 8_002_002, "kernel": "6.1.0-18-amd64"}


def refused(site: Site, uuid: str, wanted: Wanted = Wanted(None)) -> str:  # noqa: B008
    with pytest.raises(errors.InvalidError) as refusal:
        go(site, uuid, wanted)
    assert state(site, uuid) == ("ACTIVE", None, "h0")
    return str(refusal.value)


def test_each_side_is_told_in_turn_and_both_are_held_until_it_is_there(site: Site) -> None:
    two(site)
    uuid = running(site)
    go(site, uuid)
    assert state(site, uuid) == ("MIGRATING", "migrating", "h0")
    assert site.holds_from(uuid) == {"h1"}
    assert site.holds_from(migration(site).uuid) == {"h0"}
    wanted = site.assigned("h1")[uuid]
    assert (wanted["incoming"], "order" in wanted) == ({"host": "h0", "agent": "agent"}, False)
    assert {device["provider_name"] for device in wanted["devices"]} == {"h1", "h1_gpu_0"}
    assert power(site, "h0", uuid) is None  # not before all is ready there
    assert site.assigned("h0")[uuid]["leaving"]  # but what the other host asks for may be told

    awaited(site, uuid)
    assert ("agent", "h0") in site.told
    assert migration(site).status == "running"
    order = site.assigned("h0")[uuid]["order"]
    assert (order["power"], order["live"]) == ("away", {"host": "h1", "agent": "agent"})
    progress = dict.fromkeys(wire.LiveProgress.__annotations__, 5)
    site.see(uuid, "active", "h0", migration=progress)
    assert migration(site).target["progress"] == progress

    site.see(uuid, "active", "h0")  # as it was before it had obeyed
    assert migration(site).status == "running"
    obeyed(site, uuid, "stopped")
    assert state(site, uuid) == ("ACTIVE", None, "h1")
    assert uuid not in site.assigned("h0")
    assert (power(site, "h1", uuid), "incoming" in site.assigned("h1")[uuid]) == ("running", False)
    assert (site.holds_from(uuid), site.holds_from(migration(site).uuid)) == ({"h1"}, set())
    assert (migration(site).status, migration(site).fault) == ("completed", None)
    assert site.actions(uuid)[0] == ("live-migration", True, None)
    awaited_again = {
        "incarnation": site.server(uuid).incarnation,
        "order": site.assigned("h1")[uuid]["order"]["number"],
    }
    site.see(uuid, "active", "h1", **awaited_again)
    assert state(site, uuid) == ("ACTIVE", None, "h1")


@pytest.mark.parametrize("step", ["preparing", "running"])
def test_a_server_whose_migration_fails_goes_on_as_it_was_and_holds_no_more(site: Site, step: str) -> None:
    two(site)
    uuid = running(site)
    go(site, uuid)
    if step == "preparing":
        awaited(site, uuid, "error")
        site.settle()  # no other host would do
    else:
        awaited(site, uuid)
        obeyed(site, uuid, "active", FAULT)
    assert state(site, uuid) == ("ACTIVE", None, "h0")
    assert (site.holds_from(uuid), site.holds_from(migration(site).uuid)) == ({"h0"}, set())
    assert uuid not in site.assigned("h1")
    assert "leaving" not in site.assigned("h0")[uuid]
    assert power(site, "h0", uuid) == (None if step == "preparing" else "running")
    assert migration(site).status == "error"
    assert migration(site).fault is not None
    action, finished, fault = site.actions(uuid)[0]
    assert (action, finished, fault is not None) == ("live-migration", True, True)
    go(site, uuid)  # and may be tried again
    assert migration(site).status == "preparing"


def test_a_server_that_no_host_has_room_for_stays(site: Site) -> None:
    two(site)
    uuid = running(site)
    for _ in range(2):
        site.create("h1")
    go(site, uuid)
    assert state(site, uuid) == ("ACTIVE", None, "h0")
    assert migration(site).status == "error"
    assert site.holds_from(uuid) == {"h0"}


def test_one_that_is_aborted_before_it_began_is_over_at_once(site: Site) -> None:
    two(site)
    uuid = running(site)
    go(site, uuid)
    about: dict[str, Any] = {"project_id": None, "number": str(migration(site).id)}
    with pytest.raises(errors.InvalidError, match="is preparing"):
        site.db.transact(lambda session: live_migration.abort(session, uuid, ORIGIN, early=False, **about))
    told = site.db.transact(lambda session: live_migration.abort(session, uuid, ORIGIN, early=True, **about))
    assert told == ["h1"]
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "cancelled")
    assert site.holds_from(uuid) == {"h0"}


def test_one_under_way_is_told_to_its_agent_to_be_aborted_or_forced(site: Site) -> None:
    two(site)
    uuid = running(site)
    go(site, uuid)
    awaited(site, uuid)
    number = site.assigned("h0")[uuid]["order"]["number"]
    about: dict[str, Any] = {"project_id": None, "number": str(migration(site).id)}
    site.db.transact(lambda session: live_migration.force(session, uuid, ORIGIN, **about))
    site.db.transact(lambda session: live_migration.abort(session, uuid, ORIGIN, early=False, **about))
    order = site.assigned("h0")[uuid]["order"]
    assert (order["number"], order["live"].get("abort"), order["live"].get("force")) == (number, True, True)
    obeyed(site, uuid, "active", FAULT)
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "cancelled")


@on_sqlite
def test_what_agents_say_late_or_of_another_incarnation_counts_not(site: Site) -> None:
    two(site)
    uuid = running(site)
    go(site, uuid)
    site.see(uuid, "awaited", "h1", incarnation=1)
    site.see(uuid, "awaited", "h2", incarnation=2)
    assert migration(site).status == "preparing"
    awaited(site, uuid)
    awaited(site, uuid)
    assert site.assigned("h0")[uuid]["order"]["number"] == 1
    site.see(uuid, "error", "h1", incarnation=2)  # what it makes of it now, the source finds out
    assert migration(site).status == "running"


@on_sqlite
def test_a_vgpu_is_refused_where_qemu_is_too_old_which_is_named(site: Site) -> None:
    two(site, "mdev", **BOOKWORM)
    uuid = running(site)
    assert "host h0 has QEMU 7.2.22, and to carry a mediated device over takes QEMU 8.1" in refused(site, uuid)


@on_sqlite
@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"libvirt_version": 8_005_000}, "libvirt 8.5, and to carry a mediated device over takes libvirt 8.6"),
        ({"version": 8_000_005}, "QEMU 8.0.5, and to carry a mediated device over takes QEMU 8.1"),
        ({"kernel": "5.17.3"}, "Linux 5.17, and to carry a mediated device over takes Linux 5.18"),
    ],
)
def test_each_part_of_either_host_can_be_too_old_for_a_vgpu(site: Site, part: dict[str, Any], told: str) -> None:
    report(site, "h0", "mdev", **NEW)
    report(site, "h1", "mdev", **{**NEW, **part})
    uuid = running(site)
    assert f"host h1 has {told}" in refused(site, uuid, Wanted("h1"))
    assert f"no host that the server could go to: host h1 has {told}" in refused(site, uuid)


@on_sqlite
def test_a_vgpu_goes_where_both_hosts_are_new_enough(site: Site) -> None:
    two(site, "mdev", **NEW)
    uuid = running(site)
    go(site, uuid)
    assert migration(site).dest_host == "h1"
    assert site.holds_from(uuid) == {"h1"}


@on_sqlite
def test_a_vgpu_of_a_type_that_a_host_does_not_have_is_refused_by_name(site: Site) -> None:
    report(site, "h0", "mdev", (names.vgpu_type_trait("nvidia-471"),), **NEW)
    report(site, "h1", "mdev", (names.vgpu_type_trait("nvidia-472"),), **NEW)
    uuid = running(site)
    told = "host h1 has no device of vGPU type NVIDIA_471, which the server's is; it has NVIDIA_472"
    assert told in refused(site, uuid, Wanted("h1"))
    assert f"no host that the server could go to: {told}" in refused(site, uuid)
    report(site, "h1", "mdev", **NEW)
    assert "which the server's is; it has A" in refused(site, uuid)


def test_a_vgpu_goes_to_a_device_of_its_own_type_whatever_else_has_its_class(site: Site) -> None:
    wanted, other = names.vgpu_type_trait("nvidia-471"), names.vgpu_type_trait("nvidia-472")
    report(site, "h0", "mdev", (wanted,), **NEW)
    told = report(site, "h1", "mdev", (other,), **NEW, gpus=3)
    told["providers"][2]["traits"] = [wanted]
    site.controller.report_host({}, told)
    report(site, "h2", "mdev", (other,), **NEW)
    uuid = running(site)
    go(site, uuid)
    assert migration(site).dest_host == "h1"
    assert {device["provider_name"] for device in site.assigned("h1")[uuid]["devices"]} == {"h1", "h1_gpu_1"}


@on_sqlite
def test_of_several_types_of_a_gpu_that_counts_which_the_server_has(site: Site) -> None:
    one, two_ = names.vgpu_type_trait("nvidia-471"), names.vgpu_type_trait("nvidia-472")
    for name, traits in (("h0", (one, two_)), ("h1", (one,))):
        told = report(site, name, "mdev", traits, **NEW)
        amounts = told["providers"][1]["inventories"].pop("VGPU")
        told["providers"][1]["inventories"] |= {names.vgpu_class("nvidia-471"): amounts}
        site.controller.report_host({}, told)
    uuid = running(site, {f"resources:{names.vgpu_class('nvidia-471')}": "1"})
    go(site, uuid)
    assert migration(site).dest_host == "h1"


@on_sqlite
def test_a_pci_function_goes_only_where_its_spec_and_the_flavor_say_so(site: Site) -> None:
    live = os_traits.HW_PCI_LIVE_MIGRATABLE
    two(site, "pci", **NEW)
    uuid = running(site)
    assert "only where its device_spec says live_migratable" in refused(site, uuid)
    two(site, "pci", (live,), **NEW)
    assert f"its flavor does not ask for one that is live-migratable: trait:{live}=required" in refused(site, uuid)
    asks = running(site, {"resources1:VGPU": "1", f"trait1:{live}": "required"})
    go(site, asks)
    assert migration(site).dest_host == "h1"
    two(site, "pci", (live,), **{**NEW, "version": 8_001_000})
    awaited(site, asks, "error")
    site.settle()
    assert "host h0 has QEMU 8.1, and to carry a PCI function over takes QEMU 8.2.2" in refused(site, asks)


def test_pinned_cpus_are_claimed_where_it_goes_and_given_back_where_it_was(site: Site) -> None:
    dedicated = {"hw:cpu_policy": "dedicated"}
    for name in ("h0", "h1"):
        told = fleets.host_report(name)
        told["numa"] = numa_hosts.told(nodes=1, cores=2, threads=1)
        told["providers"][0]["traits"].append(names.MOVES_LIVE)
        told["providers"][0]["inventories"]["PCPU"] = fleets.amounts(2)
        site.controller.report_host({}, told)
    other = running(site, dedicated, "h1")
    uuid = running(site, dedicated)
    (taken,) = site.assigned("h1")[other]["numa"][0]["pins"].values()
    go(site, uuid)
    (pin,) = site.assigned("h1")[uuid]["numa"][0]["pins"].values()
    assert {taken, pin} == {0, 1}
    awaited(site, uuid)
    obeyed(site, uuid, "stopped")
    assert site.assigned("h1")[uuid]["numa"][0]["pins"] == {"0": pin}
    both = [running(site, dedicated) for _ in range(2)]  # all that it left can be had again
    assert [site.server(one).host for one in both] == ["h0", "h0"]


@on_sqlite
def test_a_region_of_an_fpga_never_goes(site: Site) -> None:
    two(site, "dfl", **NEW)
    uuid = running(site)
    assert "1 VGPU of h0_gpu_0, and what is in that device cannot be carried over" in refused(site, uuid)


@on_sqlite
def test_agents_that_cannot_are_no_side_of_it(site: Site) -> None:
    told = report(site, "h0")
    uuid = running(site)
    assert "the agent of host h1" in refused(site, uuid, Wanted("h1"))
    report(site, "h1")
    site.controller.report_host({}, {**told, "rpc_version": "1.1"})
    assert "the agent of host h0" in refused(site, uuid)


@on_sqlite
def test_a_disk_of_the_host_alone_is_not_left_behind(site: Site) -> None:
    two(site)
    uuid = running(site)
    assert "h0 is not on shared storage" in refused(site, uuid, Wanted(None, copies_disk=False))
    site.db.transact(lambda session: live_migration.host_lost(session, "h0", max_attempts=3))  # of nothing under way
    site.lose("h0")
    assert "Compute service of h0 is unavailable" in refused(site, uuid)


@pytest.mark.parametrize("lost", ["h0", "h1"])
def test_a_host_that_is_lost_ends_it(site: Site, lost: str) -> None:
    two(site)
    uuid = running(site)
    go(site, uuid)
    awaited(site, uuid)
    told = site.db.transact(lambda session: live_migration.host_lost(session, lost, max_attempts=3))
    assert told == {"h0", "h1"} - {lost}
    assert (state(site, uuid), migration(site).status) == (("ACTIVE", None, "h0"), "error")
    assert site.holds_from(uuid) == {"h0"}


@pytest.mark.parametrize(
    ("how", "traits", "hypervisor", "why"),
    [
        ("mdev", (), BOOKWORM, r"QEMU 7\.2\.22, and to carry a mediated device over takes QEMU 8\.1"),
        ("mdev", (), NEW, None),
        ("pci", (), NEW, "1 VGPU of h0_gpu_0, and what is in that device cannot be saved"),
        ("pci", (os_traits.HW_PCI_LIVE_MIGRATABLE,), NEW, None),
        ("dfl", (), NEW, "cannot be saved"),
        ("simulated", (), BOOKWORM, None),
    ],
)
@pytest.mark.parametrize("version", ["1.3", wire.AGENT_VERSION])
def test_a_server_is_suspended_where_its_devices_can_be_saved_or_its_agent_knows_how_to_do_without(
    site: Site, how: str, traits: tuple[str, ...], hypervisor: dict[str, Any], why: str | None, version: str
) -> None:
    told = report(site, "h0", how, traits, **hypervisor)
    site.controller.report_host({}, {**told, "rpc_version": version})
    uuid = running(site)

    def suspend() -> None:
        about: dict[str, Any] = {"project_id": None, "admin": True}
        site.db.transact(lambda session: orders.give(session, uuid, orders.SUSPEND, ORIGIN, **about))

    if why is None or version != "1.3":
        suspend()
        assert power(site, "h0", uuid) == "suspended"
    else:
        with pytest.raises(errors.ConflictError, match=f"Cannot 'suspend' instance {uuid}: .*{why}"):
            suspend()
        assert (power(site, "h0", uuid), state(site, uuid)) == (None, ("ACTIVE", None, "h0"))
