# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that are built anew: elsewhere when a build or a host failed, or in their place."""

from __future__ import annotations

import pytest
from puppets import AS_ADMIN, FAULT, ORIGIN, Site
from sqlalchemy import select

from accelsched import errors, names
from accelsched.api.compute import server_views
from accelsched.compute import decisions, orders, rebuilding, servers
from accelsched.db.compute import Host


def running(site: Site) -> str:
    (uuid,) = site.create()
    site.see(uuid, "active")
    return uuid


def test_a_first_build_that_fails_is_tried_on_other_hosts_and_then_given_up_with_the_reason(site: Site) -> None:
    (uuid,) = site.create()
    tried = []
    for _ in range(2):
        tried.append(site.server(uuid).host)
        site.see(uuid, "error")
        site.settle()
        assert site.holds_from(uuid) == {site.server(uuid).host}
        assert uuid not in site.assigned(str(tried[-1]))
    tried.append(site.server(uuid).host)
    assert len(set(tried)) == 3
    site.see(uuid, "error", host=tried[0])  # said again by a host that it has left
    assert site.server(uuid).state == "building"
    site.see(uuid, "error")
    server = site.server(uuid)
    assert (server.state, server.host) == ("error", tried[2])
    assert server.fault is not None
    assert server.fault["message"] == FAULT["message"]
    assert site.actions(uuid) == [("create", True, FAULT["message"])]
    with site.db.reading() as session:
        assert decisions.explain(session, uuid, project_id="p")["selection"]["host"] == tried[2]
        failed = {row.name: row.failed_builds for row in session.scalars(select(Host))}
    assert failed == {name: int(name in tried) for name in ("h0", "h1", "h2", "h3")}


def test_a_server_that_has_no_choice_of_hosts_is_not_tried_elsewhere(site: Site) -> None:
    (uuid,) = site.create(host="h2")
    site.see(uuid, "error")
    assert (site.server(uuid).state, site.server(uuid).host) == ("error", "h2")


def test_others_of_its_request_run_on_when_a_failed_build_finds_no_other_host(site: Site) -> None:
    made = site.create(count=8)  # every vGPU there is
    for uuid in made[1:]:
        site.see(uuid, "active")
    site.see(made[0], "error")
    site.settle()
    fault = site.server(made[0]).fault
    assert fault is not None
    assert FAULT["message"] in fault["message"]
    assert all(site.server(uuid).state == "active" and site.server(uuid).host for uuid in made[1:])


def test_a_rebuilt_server_is_a_new_incarnation_and_what_is_said_of_the_old_one_counts_no_more(site: Site) -> None:
    uuid = running(site)
    image = {"id": "i", "name": "i", "disk_format": "raw", "size": 1, "properties": {}}
    rebuild = rebuilding.Rebuild(image, {"name": "renamed"})
    told = site.db.transact(lambda session: rebuilding.rebuild(session, uuid, rebuild, ORIGIN, **AS_ADMIN))
    assert told is not None
    wanted = site.assigned(told[1])[uuid]
    assert (wanted["incarnation"], wanted["name"]) == (2, "renamed")
    with pytest.raises(errors.ConflictError, match="task_state rebuilding"):
        site.db.transact(lambda session: orders.give(session, uuid, orders.STOP, ORIGIN, **AS_ADMIN))
    site.see(uuid, "active")
    assert site.server(uuid).task == "rebuilding"
    site.see(uuid, "building", incarnation=2)
    assert site.server(uuid).state == "active"
    site.see(uuid, "active", incarnation=2)
    assert (site.server(uuid).state, site.server(uuid).task) == ("active", None)
    assert site.actions(uuid) == [("rebuild", True, None), ("create", True, None)]


def test_a_password_is_kept_until_the_server_is_built_with_it_and_no_longer(site: Site) -> None:
    (uuid,) = site.create(admin_pass="first")
    site.see(uuid, "error")
    site.settle()
    site.see(uuid, "building")

    def told() -> str | None:
        return site.assigned(str(site.server(uuid).host))[uuid].get("admin_pass")

    assert told() == "first"  # on the next host too
    site.see(uuid, "active")
    assert (told(), site.server(uuid).admin_pass) == (None, None)
    rebuild = rebuilding.Rebuild({"id": "i", "properties": {}}, admin_pass="second")
    site.db.transact(lambda session: rebuilding.rebuild(session, uuid, rebuild, ORIGIN, **AS_ADMIN))
    site.see(uuid, "active")  # said of the one before
    assert told() == "second"
    site.see(uuid, "active", incarnation=2)
    assert told() is None
    site.lose(str(site.server(uuid).host))
    evacuate(site, uuid, admin_pass="third")
    site.see(uuid, "active", incarnation=2)  # the lost host is not so lost
    assert site.server(uuid).admin_pass == "third"
    site.settle()
    assert told() == "third"
    site.db.transact(lambda session: servers.delete(session, uuid, ORIGIN, **AS_ADMIN))
    assert site.server(uuid).admin_pass is None


def test_a_server_has_the_addresses_that_its_agent_saw_last_and_none_when_it_is_on_no_network(site: Site) -> None:
    (uuid,) = site.create(networks="auto")
    assert site.assigned(str(site.server(uuid).host))[uuid]["networks"] == "auto"

    def addresses() -> dict[str, list[str]]:
        shown = server_views.addresses(site.server(uuid), detailed=True)
        mac = names.mac_address(uuid)
        assert all(one["OS-EXT-IPS-MAC:mac_addr"] == mac for known in shown.values() for one in known)
        return {network: [one["addr"] for one in known] for network, known in shown.items()}

    site.see(uuid, "active", interface={"network": "default", "addresses": []})
    assert addresses() == {}
    site.see(uuid, "active", interface={"network": "default", "addresses": ["192.0.2.7", "2001:db8::7"]})
    assert addresses() == {"default": ["192.0.2.7", "2001:db8::7"]}
    site.see(uuid, "active")  # by an agent of an earlier version, or whose operator took the network away
    assert addresses() == {}


def test_a_rebuild_that_fails_is_an_error_and_can_be_tried_again(site: Site) -> None:
    uuid = running(site)
    for incarnation in (2, 3):
        rebuild = rebuilding.Rebuild(image={"id": "i", "properties": {}})
        site.db.transact(lambda session: rebuilding.rebuild(session, uuid, rebuild, ORIGIN, **AS_ADMIN))  # noqa: B023
        site.see(uuid, "error", incarnation=incarnation)
        assert (site.server(uuid).state, site.server(uuid).task) == ("error", None)
    assert site.actions(uuid)[:2] == [("rebuild", True, FAULT["message"])] * 2


def test_a_stopped_server_stays_stopped_wherever_it_is_built_anew(site: Site) -> None:
    uuid = running(site)
    site.db.transact(lambda session: orders.give(session, uuid, orders.STOP, ORIGIN, **AS_ADMIN))
    site.see(uuid, "stopped", order=1)
    evacuated_from = str(site.server(uuid).host)
    site.lose(evacuated_from)
    evacuate(site, uuid)
    wanted = site.assigned(str(site.server(uuid).host))[uuid]
    assert wanted["order"] == {"number": 2, "power": "stopped", "reboot": None}


@pytest.mark.parametrize("ends", ["rescued", "could not be", "deleted"])
def test_the_password_of_a_rescue_is_told_with_its_order_and_kept_until_that_is_over(site: Site, ends: str) -> None:
    (uuid,) = site.create()
    site.see(uuid, "active")
    host, about = str(site.server(uuid).host), {**AS_ADMIN, "beside": {"rescue": {"id": "i"}, "admin_pass": "secret"}}
    site.db.transact(lambda session: orders.give(session, uuid, orders.RESCUE, ORIGIN, **about))
    order = site.assigned(host)[uuid]["order"]
    assert (order["power"], order["admin_pass"]) == ("rescued", "secret")
    match ends:
        case "rescued":
            site.see(uuid, "rescued", order=order["number"], order_fault=None)
        case "could not be":
            site.see(uuid, "active", order=order["number"], order_fault=FAULT)
        case "deleted":
            site.db.transact(lambda session: servers.delete(session, uuid, ORIGIN, **AS_ADMIN))
            site.see(uuid, "gone")
    assert site.server(uuid).power_order == {key: value for key, value in order.items() if key != "admin_pass"}


def evacuate(site: Site, uuid: str, target: str | None = None, admin_pass: str | None = None) -> None:
    site.db.transact(
        lambda session: rebuilding.evacuate(
            *(session, uuid, ORIGIN),
            **AS_ADMIN,
            target=target,
            stopped=False,
            admin_pass=admin_pass,
            service_down_time_s=60,
        )
    )
    site.settle()


def test_a_server_of_a_lost_host_is_built_on_another_which_alone_has_it_then(site: Site) -> None:
    uuid = running(site)
    lost = str(site.server(uuid).host)
    with pytest.raises(errors.InvalidError, match="still in use"):
        evacuate(site, uuid)
    site.lose(lost)
    with pytest.raises(errors.InvalidError, match="the same one"):
        evacuate(site, uuid, target=lost)
    with pytest.raises(errors.NotFoundError):
        evacuate(site, uuid, target="h9")
    evacuate(site, uuid)
    there = str(site.server(uuid).host)
    assert there != lost
    assert site.holds_from(uuid) == {there}
    assert uuid not in site.assigned(lost)
    assert site.assigned(there)[uuid]["incarnation"] == 2
    site.see(uuid, "active", host=lost)
    assert site.server(uuid).task == "rebuilding"
    site.see(uuid, "active", incarnation=2)
    assert site.server(uuid).task is None
    assert site.actions(uuid) == [("evacuate", True, None), ("create", True, None)]
    with site.db.reading() as session:
        assert decisions.explain(session, uuid, project_id="p")["selection"]["host"] == there


def test_a_server_that_no_other_host_has_room_for_stays_what_and_where_it_was(site: Site) -> None:
    made = site.create(count=8)
    for uuid in made:
        site.see(uuid, "active")
    lost = str(site.server(made[0]).host)
    site.lose(lost)
    evacuate(site, made[0])
    server = site.server(made[0])
    assert (server.host, server.state, server.task) == (lost, "active", None)
    assert site.holds_from(made[0]) == {lost}
    action, finished, why = site.actions(made[0])[0]
    assert (action, finished) == ("evacuate", True)
    assert why is not None
    assert "No valid host" in why


def test_all_servers_of_a_host_are_evacuated_at_once_and_only_once(site: Site) -> None:
    made = site.create(count=4)
    for uuid in made:
        site.see(uuid, "active")
    lost = str(site.server(made[0]).host)
    here = [uuid for uuid in made if site.server(uuid).host == lost]
    site.lose(lost)
    on_their_way = [site.db.transact(lambda session: rebuilding.evacuate_host(session, lost, ORIGIN)) for _ in range(2)]
    assert on_their_way == [len(here), 0]
    site.settle()
    assert all(site.server(uuid).host != lost for uuid in made)
