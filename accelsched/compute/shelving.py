# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers on the shelf: on no host, holding nothing, their disk an image in Glance until they are taken down again.

*Shelving* is an order that stops a server and fills an image (:mod:`accelsched.compute.orders`). Once it was carried
out the server is wanted on its host no longer, and when its agent says that it is gone, what it held is free.
*Unshelving* asks the schedulers for a host, as a move does; the agent there makes the disk from the image, which is of
no use then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors, names
from accelsched.compute import moving, servers, snapshots, states
from accelsched.db import instance_actions, moves
from accelsched.db.base import utcnow
from accelsched.db.compute import Host, Server
from accelsched.placement import claims

UNSHELVING = "unshelving"
_OFFLOADING = "shelving_offloading"
_SHELVED = frozenset({"shelved_offloaded"})


@dataclass(frozen=True)
class Unshelve:
    """How a server is to be taken down; None leaves it to what it was created with, and the schedulers."""

    image: Mapping[str, Any] | None = None  # wire.ImageSpec of its disk; None: it has none
    availability_zone: str | None = None
    host: str | None = None


def check_shelved(server: Server, action: str, *, admin: bool) -> None:
    """Refuse what is for servers on the shelf only.

    :param admin: whether who asks may do so although the server is locked
    :raises accelsched.errors.ConflictError: when it is not there, is busy or locked
    """
    servers.check_unlocked(server, admin=admin)
    servers.check_state(server, action, _SHELVED)


def unshelve(
    session: Session,
    uuid: str,
    wanted: Unshelve,
    origin: instance_actions.Origin,
    *,
    project_id: str | None,
    admin: bool,
) -> None:
    """Ask the schedulers for a host. The server stays on the shelf until it was built there.

    :raises accelsched.errors.NotFoundError: when there is no such server
    :raises accelsched.errors.ConflictError: when it is not on the shelf, or locked
    :raises accelsched.errors.InvalidError: when there is no such host
    """
    server = servers.alive(session, uuid, project_id)
    check_shelved(server, "unshelve", admin=admin)
    if wanted.host is not None and session.scalar(select(Host.id).where(Host.name == wanted.host)) is None:
        raise errors.InvalidError(f"Compute host {wanted.host} could not be found.")
    before = moving.request_of(session, server)
    spec = {
        **before.spec,
        "availability_zone": wanted.availability_zone or before.spec.get("availability_zone"),
        "host": wanted.host,
        # An older agent would build it from the image that it was first made of.
        "host_traits": [] if wanted.image is None else [names.RPC_1_1],
    }
    moving.ask_for_host(session, server, before, spec)
    server.shelved_image = None if wanted.image is None else dict(wanted.image)
    moves.wish(server, "running")
    server.task = UNSHELVING
    server.updated_at = utcnow()
    instance_actions.begin(session, [server.id], "unshelve", origin, event="compute_unshelve_instance")


def offload(server: Server) -> None:
    """Want a server on its host no longer: its order was carried out, so it is stopped, and its image filled."""
    image_id = (server.power_order or {}).get("snapshot")
    server.shelved_image = None if image_id is None else {"id": image_id}
    server.state, server.desired, server.task = states.STOPPED, "shelved", _OFFLOADING


def off_host(session: Session, server: Server) -> None:
    """Note that nothing of a server is left on its host, or that its host is lost."""
    _on_the_shelf(session, server)
    server.desired = "active"


def not_built(session: Session, server: Server) -> None:
    """Put a server back that could not be built on the host that it was to go to."""
    _on_the_shelf(session, server)


def built(session: Session, server: Server) -> None:
    """Note that a server runs that was on the shelf."""
    if server.shelved_image is not None:
        snapshots.unwanted(session, [server.shelved_image["id"]])
        server.shelved_image = None


def _on_the_shelf(session: Session, server: Server) -> None:
    claims.release(session, [server.uuid])
    server.state, server.task, server.detail = states.SHELVED, None, ""
    server.host = server.node_uuid = None
    server.devices, server.numa = [], None
