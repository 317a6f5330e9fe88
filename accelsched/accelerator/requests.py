# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerator requests: what was asked for by device profiles, a unit each, and what servers got for it.

Those of servers with a device profile are not kept: a server's row says all of it. Those that were made by themselves
are, see :mod:`accelsched.accelerator.own_requests`; what they are bound to, a server's row says as well.
"""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.accelerator import ids, profiles
from accelsched.compute import accelerators
from accelsched.db.accelerator import AcceleratorRequest as Row
from accelsched.db.compute import Server

State = Literal["Initial", "BindStarted", "Bound", "BindFailed", "Unbound", "Deleting"]

RESOLVED = frozenset({"Bound", "BindFailed", "Deleting"})
"""States in which it is known how binding went, as Cyborg has it."""

_MOST = 64  # of a server


@dataclasses.dataclass(frozen=True)
class AcceleratorRequest:
    """A unit that was asked for.

    :ivar server: whose it is, or is to be; None when it is bound to none
    :ivar provider_uuid: of the device that it is of; None when there is none yet
    """

    uuid: str
    state: State
    server: Server | None
    project_id: str
    profile: str
    group: int
    resource_class: str
    provider_uuid: str | None
    provider_name: str | None


def of_server(server: Server) -> list[AcceleratorRequest]:
    """Return all that a server has by its own profile."""
    specs = server.flavor["extra_specs"]
    devices = {profiles.group_of(held["group"]): held for held in server.devices}
    units = itertools.chain.from_iterable(
        itertools.repeat((group, class_), amount) for group, class_, amount in profiles.amounts(specs)
    )
    found = []
    for number, (group, class_) in enumerate(itertools.islice(units, _MOST), start=1):
        held = devices.get(group)
        state: State = "Bound" if held else "BindFailed" if server.state == "error" else "Initial"
        found.append(
            AcceleratorRequest(
                ids.of_part(server.uuid, number),
                state,
                server,
                server.project_id,
                specs[profiles.EXTRA_SPEC],
                group,
                class_,
                held["provider_uuid"] if held else None,
                held["provider_name"] if held else None,
            )
        )
    return found


def of_row(row: Row, server: Server | None) -> AcceleratorRequest:
    """Return one that was made by itself.

    :param server: that it says it is bound to
    """
    plugged = () if server is None else accelerators.plugged(server)
    held = next((device for device in plugged if device["plug"]["id"] == row.plug_id), None)
    if held is None:
        state, server = cast("State", row.unbound_state), None
    elif row.forget:
        state = "Deleting"
    else:
        state = "BindStarted" if held["plug"]["state"] == accelerators.ATTACHING else "Bound"
    return AcceleratorRequest(
        row.uuid,
        state,
        server,
        row.project_id,
        row.profile,
        row.group_number,
        row.resource_class,
        held["provider_uuid"] if held else None,
        held["provider_name"] if held else None,
    )


def list_(
    session: Session, *, project_id: str | None, server_uuid: str | None = None, most: int
) -> list[AcceleratorRequest]:
    """Return those that were made by themselves, the newest first, then those of servers, the newest servers' first.

    :param project_id: whose; None for anybody's
    :param server_uuid: bound to, or of, this server alone
    :param most: requests, and servers, that are looked at
    """
    own = select(Row, Server).outerjoin(Server, Server.id == Row.server_id).order_by(Row.id.desc()).limit(most)
    query = select(Server).where(Server.deleted_at.is_(None)).order_by(Server.id.desc()).limit(most)
    if server_uuid is not None:
        own, query = own.where(Server.uuid == server_uuid), query.where(Server.uuid == server_uuid)
    else:
        specs = Server.flavor["extra_specs"]
        query = query.where(specs[profiles.EXTRA_SPEC].as_string().is_not(None))
    if project_id is not None:
        own, query = own.where(Row.project_id == project_id), query.where(Server.project_id == project_id)
    made = [of_row(row, server) for row, server in session.execute(own) if _is_there(row, server)]
    if server_uuid is not None:
        made = [one for one in made if one.server is not None]
    return made + [request for server in session.scalars(query) for request in of_server(server)]


def get(session: Session, request_uuid: str, *, project_id: str | None) -> AcceleratorRequest:
    """Return one.

    :param project_id: whose it must be; None for anybody's
    :raises accelsched.errors.NotFoundError: there is none
    """
    missing = errors.NotFoundError(f"There is no accelerator request {request_uuid[:100]}.")
    try:
        canonical, owners = str(uuid.UUID(request_uuid)), ids.owners(request_uuid, _MOST)
    except ValueError as exc:
        raise missing from exc
    own = select(Row, Server).outerjoin(Server, Server.id == Row.server_id).where(Row.uuid == canonical)
    query = select(Server).where(Server.uuid.in_(owners), Server.deleted_at.is_(None))
    if project_id is not None:
        own, query = own.where(Row.project_id == project_id), query.where(Server.project_id == project_id)
    for row, server in session.execute(own):
        if _is_there(row, server):
            return of_row(row, server)
    for server in session.scalars(query):
        for request in of_server(server):
            if request.uuid == owners[server.uuid]:
                return request
    raise missing


def _is_there(row: Row, server: Server | None) -> bool:
    """Tell whether one is there: one that was to go with its accelerator, which was lost with its host, is not."""
    return not row.forget or of_row(row, server).server is not None


def address_of(request: AcceleratorRequest) -> Mapping[str, str] | None:
    """Return the PCI address in the name of the device's provider, ``HOST_pci_0000_41_00_0``; None when it has none."""
    _, found, address = (request.provider_name or "").rpartition("_pci_")
    parts: Sequence[str] = address.split("_")
    return dict(zip(("domain", "bus", "device", "function"), parts, strict=True)) if found and len(parts) == 4 else None
