# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of servers: what becomes of one that is of no use, whatever happens while it is made."""

from __future__ import annotations

from typing import Any

import pytest
from puppets import AS_ADMIN, FAULT, ORIGIN, Site
from sqlalchemy import select

from accelsched import errors
from accelsched.compute import orders, rebuilding, servers
from accelsched.db.compute import UnwantedImage

IMAGE = "11111111-0000-4000-8000-000000000001"
OLDER = "11111111-0000-4000-8000-000000000002"


@pytest.fixture
def server(site: Site) -> str:
    """A server that runs and is being made an image of, which replaces another."""
    (uuid,) = site.create()
    site.see(uuid, "active")
    order(site, uuid)
    return uuid


def order(site: Site, uuid: str) -> None:
    beside = {"snapshot": IMAGE, "outdated": [OLDER]}
    site.db.transact(
        lambda session: orders.give(session, uuid, orders.CREATE_BACKUP, ORIGIN, **AS_ADMIN, beside=beside)
    )


def unwanted(site: Site) -> list[str]:
    with site.db.reading() as session:
        return list(session.scalars(select(UnwantedImage.image_id)))


def test_the_agent_is_told_which_image_and_says_how_far_it_is(site: Site, server: str) -> None:
    wanted = site.assigned(str(site.server(server).host))[server]
    assert wanted["order"] == {"number": 1, "power": "running", "reboot": None, "snapshot": IMAGE}
    for step in ("image_pending_upload", "image_uploading"):
        site.see(server, "active", snapshot=step)
        assert site.server(server).task == step
    with pytest.raises(errors.ConflictError, match="task_state image_uploading"):
        order(site, server)
    site.see(server, "active", order=1, order_fault=None)
    assert (site.server(server).task, unwanted(site)) == (None, [OLDER])
    assert site.actions(server)[0] == ("createBackup", True, None)


def test_an_image_that_cannot_be_filled_is_unwanted_and_its_owner_is_told_why(site: Site, server: str) -> None:
    site.see(server, "active", order=1, order_fault=FAULT)
    assert (site.server(server).task, unwanted(site)) == (None, [IMAGE])
    assert site.actions(server)[0] == ("createBackup", True, FAULT["message"])


def test_an_image_of_a_server_that_is_deleted_or_lost_meanwhile_is_unwanted(site: Site, server: str) -> None:
    site.db.transact(lambda session: servers.delete(session, server, ORIGIN, **AS_ADMIN))
    assert unwanted(site) == [IMAGE]
    site.see(server, "gone")
    assert site.actions(server)[1] == ("createBackup", True, "The server was deleted meanwhile.")

    (other,) = site.create()
    site.see(other, "active")
    beside: dict[str, Any] = {"snapshot": OLDER}
    site.db.transact(
        lambda session: orders.give(session, other, orders.CREATE_IMAGE, ORIGIN, **AS_ADMIN, beside=beside)
    )
    host = str(site.server(other).host)
    site.lose(host)
    site.db.transact(lambda session: rebuilding.evacuate_host(session, host, ORIGIN))
    assert set(unwanted(site)) == {IMAGE, OLDER}
    assert ("createImage", True, "The server's host was lost meanwhile.") in site.actions(other)
