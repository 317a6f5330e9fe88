# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerator requests: what servers with a device profile asked for, a unit each, and what they got for it.

They are not kept: a server's row says all of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.accelerator import ids, profiles
from accelsched.db.compute import Server

State = Literal["Initial", "Bound", "BindFailed"]

_MOST = 64  # of a server


@dataclasses.dataclass(frozen=True)
class AcceleratorRequest:
    """A unit that a server asked for.

    :ivar provider_uuid: of the device that it is of; None when there is none yet
    """

    uuid: str
    state: State
    server: Server
    profile: str
    group: int
    resource_class: str
    provider_uuid: str | None
    provider_name: str | None


def of_server(server: Server) -> list[AcceleratorRequest]:
    """Return all of a server's."""
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
                specs[profiles.EXTRA_SPEC],
                group,
                class_,
                held["provider_uuid"] if held else None,
                held["provider_name"] if held else None,
            )
        )
    return found


def list_(
    session: Session, *, project_id: str | None, server_uuid: str | None = None, most: int
) -> list[AcceleratorRequest]:
    """Return those of servers that are there, the newest servers' first.

    :param project_id: whose servers; None for anybody's
    :param server_uuid: of this server alone
    :param most: servers that are looked at
    """
    query = select(Server).where(Server.deleted_at.is_(None)).order_by(Server.id.desc()).limit(most)
    if server_uuid is not None:
        query = query.where(Server.uuid == server_uuid)
    else:
        specs = Server.flavor["extra_specs"]
        query = query.where(specs[profiles.EXTRA_SPEC].as_string().is_not(None))
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
    return [request for server in session.scalars(query) for request in of_server(server)]


def get(session: Session, request_uuid: str, *, project_id: str | None) -> AcceleratorRequest:
    """Return one.

    :param project_id: whose it must be; None for anybody's
    :raises accelsched.errors.NotFoundError: there is none
    """
    missing = errors.NotFoundError(f"There is no accelerator request {request_uuid[:100]}.")
    try:
        owners = ids.owners(request_uuid, _MOST)
    except ValueError as exc:
        raise missing from exc
    query = select(Server).where(Server.uuid.in_(owners), Server.deleted_at.is_(None))
    if project_id is not None:
        query = query.where(Server.project_id == project_id)
    for server in session.scalars(query):
        for request in of_server(server):
            if request.uuid == owners[server.uuid]:
                return request
    raise missing


def address_of(request: AcceleratorRequest) -> Mapping[str, str] | None:
    """Return the PCI address in the name of the device's provider, ``HOST_pci_0000_41_00_0``; None when it has none."""
    _, found, address = (request.provider_name or "").rpartition("_pci_")
    parts: Sequence[str] = address.split("_")
    return dict(zip(("domain", "bus", "device", "function"), parts, strict=True)) if found and len(parts) == 4 else None
