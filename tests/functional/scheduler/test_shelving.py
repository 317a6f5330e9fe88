# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that are put on the shelf and taken down again: what they hold, and what becomes of their image."""

from __future__ import annotations

from typing import Any

import pytest
from puppets import AS_ADMIN, FAULT, ORIGIN, Site
from sqlalchemy import select

from accelsched import errors
from accelsched.compute import orders, rebuilding, servers, shelving, states
from accelsched.db.compute import UnwantedImage

IMAGE = "11111111-0000-4000-8000-000000000001"
SPEC: dict[str, Any] = {"id": IMAGE, "name": "vm-shelved", "disk_format": "qcow2", "size": 1, "properties": {}}


@pytest.fixture
def server(site: Site) -> str:
    (uuid,) = site.create()
    site.see(uuid, "active")
    return uuid


def shelve(site: Site, uuid: str, image: str | None = IMAGE) -> None:
    beside = {} if image is None else {"snapshot": image}
    site.db.transact(lambda session: orders.give(session, uuid, orders.SHELVE, ORIGIN, **AS_ADMIN, beside=beside))


def on_the_shelf(site: Site, uuid: str, image: str | None = IMAGE) -> str:
    """Put a server on the shelf; return the host that it left."""
    host = str(site.server(uuid).host)
    incarnation = site.server(uuid).incarnation
    shelve(site, uuid, image)
    number = site.assigned(host)[uuid]["order"]["number"]
    site.see(uuid, "stopped", order=number, order_fault=None, incarnation=incarnation)
    site.see(uuid, "gone")
    return host


def unshelve(site: Site, uuid: str, image: dict[str, Any] | None = SPEC, host: str | None = None) -> None:
    wanted = shelving.Unshelve(image, host=host)
    site.db.transact(lambda session: shelving.unshelve(session, uuid, wanted, ORIGIN, **AS_ADMIN))
    site.settle()


def unwanted(site: Site) -> list[str]:
    with site.db.reading() as session:
        return list(session.scalars(select(UnwantedImage.image_id)))


def told(site: Site, uuid: str) -> tuple[str, str | None]:
    state = states.of(site.server(uuid))
    return state.status, state.task_state


def test_a_shelved_server_holds_nothing_once_its_image_is_filled_and_its_host_is_rid_of_it(
    site: Site, server: str
) -> None:
    host = str(site.server(server).host)
    shelve(site, server)
    assert site.assigned(host)[server]["order"] == {"number": 1, "power": "stopped", "reboot": None, "snapshot": IMAGE}
    site.see(server, "stopped", snapshot="image_uploading")
    assert told(site, server) == ("SHUTOFF", "shelving_image_uploading")
    site.see(server, "stopped", order=1, order_fault=None)
    assert told(site, server) == ("SHUTOFF", "shelving_offloading")
    assert site.told[-1][1] == host
    assert site.assigned(host)[server]["desired"] == "deleted"
    assert site.holds_from(server) == {host}
    site.see(server, "stopped", order=1, order_fault=None)  # said again, before it is removed
    site.see(server, "gone")
    assert told(site, server) == ("SHELVED_OFFLOADED", None)
    shown = site.server(server)
    assert (shown.host, shown.devices, site.holds_from(server), site.assigned(host)) == (None, [], set(), {})
    assert site.actions(server)[0] == ("shelve", True, None)
    assert unwanted(site) == []


def test_a_server_is_taken_from_the_shelf_with_its_disk_and_the_image_is_of_no_use_then(
    site: Site, server: str
) -> None:
    on_the_shelf(site, server)
    unshelve(site, server)
    assert told(site, server) == ("SHELVED_OFFLOADED", "unshelving")
    host = str(site.server(server).host)
    wanted = site.assigned(host)[server]
    assert (wanted["restore"], wanted["order"]["power"], wanted["incarnation"]) == (SPEC, "running", 2)
    assert site.holds_from(server) == {host}
    site.see(server, "building", incarnation=2)
    assert unwanted(site) == []
    site.see(server, "active", incarnation=2, order=wanted["order"]["number"], order_fault=None)
    assert told(site, server) == ("ACTIVE", None)
    assert "restore" not in site.assigned(host)[server]
    assert unwanted(site) == [IMAGE]
    assert site.actions(server)[0] == ("unshelve", True, None)
    on_the_shelf(site, server)  # and again
    assert told(site, server) == ("SHELVED_OFFLOADED", None)


def test_a_server_that_cannot_be_taken_from_the_shelf_stays_there_with_its_image(site: Site, server: str) -> None:
    on_the_shelf(site, server)
    unshelve(site, server)
    first = str(site.server(server).host)
    site.see(server, "error", incarnation=2)
    assert told(site, server) == ("SHELVED_OFFLOADED", None)
    assert site.actions(server)[0] == ("unshelve", True, FAULT["message"])
    assert (site.holds_from(server), site.assigned(first), unwanted(site)) == (set(), {}, [])

    for name in ("h0", "h1", "h2", "h3"):
        site.lose(name)
    unshelve(site, server)
    assert told(site, server) == ("SHELVED_OFFLOADED", None)
    action, finished, why = site.actions(server)[0]
    assert (action, finished, "No valid host" in str(why)) == ("unshelve", True, True)


def test_a_server_that_is_not_on_the_shelf_cannot_be_taken_from_it_nor_go_to_a_host_that_is_not_there(
    site: Site, server: str
) -> None:
    with pytest.raises(errors.ConflictError, match="Cannot 'unshelve'"):
        unshelve(site, server)
    on_the_shelf(site, server)
    with pytest.raises(errors.InvalidError, match="Compute host nowhere could not be found"):
        unshelve(site, server, host="nowhere")
    with pytest.raises(errors.ConflictError, match="on the shelf"):
        site.db.transact(lambda session: orders.reset_state(session, server, "active", ORIGIN, project_id=None))
    unshelve(site, server, host="h3")
    assert site.server(server).host == "h3"


def test_a_server_without_a_disk_needs_no_image(site: Site, server: str) -> None:
    on_the_shelf(site, server, image=None)
    assert told(site, server) == ("SHELVED_OFFLOADED", None)
    unshelve(site, server, image=None)
    wanted = site.assigned(str(site.server(server).host))[server]
    assert "restore" not in wanted
    site.see(server, "active", incarnation=2)
    assert (told(site, server), unwanted(site)) == (("ACTIVE", None), [])


def test_a_server_whose_image_cannot_be_filled_stays_where_it_is(site: Site, server: str) -> None:
    shelve(site, server)
    site.see(server, "stopped", order=1, order_fault=FAULT)
    assert told(site, server) == ("SHUTOFF", None)
    assert unwanted(site) == [IMAGE]
    assert site.actions(server)[0] == ("shelve", True, FAULT["message"])


@pytest.mark.parametrize("when", ["while its image is filled", "while it leaves", "on the shelf", "on its way"])
def test_a_server_that_is_deleted_leaves_no_image(site: Site, server: str, when: str) -> None:
    if when in ("while its image is filled", "while it leaves"):
        shelve(site, server)
        if when == "while it leaves":
            site.see(server, "stopped", order=1, order_fault=None)
    else:
        on_the_shelf(site, server)
        if when == "on its way":
            unshelve(site, server)
    site.db.transact(lambda session: servers.delete(session, server, ORIGIN, **AS_ADMIN))
    if site.server(server).host is not None:
        site.see(server, "gone")
    assert told(site, server) == ("DELETED", None)
    assert (unwanted(site), site.holds_from(server)) == ([IMAGE], set())


def test_a_server_whose_host_is_lost_while_it_leaves_is_on_the_shelf(site: Site, server: str) -> None:
    host = str(site.server(server).host)
    shelve(site, server)
    site.see(server, "stopped", order=1, order_fault=None)
    site.lose(host)
    site.db.transact(lambda session: rebuilding.evacuate_host(session, host, ORIGIN))
    assert told(site, server) == ("SHELVED_OFFLOADED", None)
    assert site.holds_from(server) == set()
    unshelve(site, server)
    assert site.server(server).host not in (None, host)
