# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerator requests that are made by themselves, and bound to servers that are there.

=============  ===========================================================  ================================
state          what is so                                                   then
=============  ===========================================================  ================================
Initial        it was made                                                  bind, delete
BindStarted    a device is claimed, its server's agent is to attach it      Bound, or BindFailed
Bound          it is attached; or its guest is to let it go                 unbind, delete
Unbound        its server has it no more                                    bind, delete
BindFailed     it could not be attached                                     bind, unbind, delete
Deleting       its guest is to let it go; if that does not, it is Bound     it goes
=============  ===========================================================  ================================

To be bound is to be an accelerator that is plugged into a server (:mod:`accelsched.compute.accelerators`). Whoever
changes both has the server's row locked before the request's.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import os_resource_classes as orc
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.accelerator import profiles, requests
from accelsched.accelerator.requests import AcceleratorRequest
from accelsched.compute import accelerators, quotas, servers
from accelsched.compute.accelerators import Chosen, Wanted
from accelsched.db import bindings
from accelsched.db.accelerator import AcceleratorRequest as Row
from accelsched.db.compute import Server
from accelsched.db.instance_actions import Origin
from accelsched.scheduler import request as scheduler_request

_MOST = 64  # made at once, as a server has
_BY_SERVERS = (
    "Accelerator request {} is of the flavor of instance {}: it comes and goes with that, and is not bound, unbound or "
    "deleted by itself."
)


@dataclass(frozen=True)
class Binding:
    """What requests are to be bound to: one server, where it is.

    :ivar devices: the device (uuid of its resource provider) that each is to be of, by the request's uuid
    :ivar project_id: that the server is thought to be of; None when that was not said
    """

    server_uuid: str
    host: str
    devices: Mapping[str, str]
    project_id: str | None


def create(
    session: Session,
    *,
    project_id: str,
    profile_name: str,
    group: int | None,
    image_uuid: str | None,
    most: int,
) -> list[AcceleratorRequest]:
    """Make a request for each unit that a profile asks for.

    :param group: of the profile, whose units alone are wanted; None for all
    :param image_uuid: bitstream that FPGAs are to be programmed with
    :param most: that a project may have while they are bound to nothing; -1 for as many as it likes
    :raises accelsched.errors.NotFoundError: there is no such profile
    :raises accelsched.errors.InvalidError: it has no such group, or asks for nothing or too much; or nothing is made of
        the image
    :raises accelsched.errors.QuotaExceededError: the project has too many
    """
    profile = profiles.get(session, profile_name)
    if group is not None and group >= len(profile.groups):
        raise errors.InvalidError(
            f"device_profile_group_id: device profile {profile.name} has groups 0 to {len(profile.groups) - 1}"
        )
    chosen = enumerate(profile.groups) if group is None else [(group, profile.groups[group])]
    units = [(number, *unit) for number, asked in chosen for unit in units_of(asked, image_uuid)]
    if image_uuid is not None and all(class_ != orc.FPGA for _, class_, _ in units):
        raise errors.InvalidError(
            f"image_uuid: it is the bitstream of an FPGA, and device profile {profile.name} asks for no {orc.FPGA}"
        )
    if not units:
        raise errors.InvalidError(f"Device profile {profile.name} asks for no accelerator")
    if len(units) > _MOST:
        raise errors.InvalidError(
            f"Device profile {profile.name} asks for {len(units)} accelerators; {_MOST} at a time"
        )
    _admit(session, project_id, len(units), most)
    made = [
        Row(
            uuid=str(uuid.uuid4()),
            project_id=project_id,
            profile=profile.name,
            group_number=number,
            resource_class=class_,
            asked=asked,
        )
        for number, class_, asked in units
    ]
    session.add_all(made)
    session.flush()
    return [requests.of_row(row, None) for row in made]


def units_of(group: Mapping[str, str], image_uuid: str | None = None) -> list[tuple[str, dict[str, str]]]:
    """Return the units that a profile's group asks for: the resource class, and what is asked of each.

    :param image_uuid: what FPGAs are to be programmed with
    :raises accelsched.errors.InvalidError: a class is no accelerator's; or it says itself what they are programmed with
    """
    traits = {key: value for key, value in group.items() if key.startswith("trait:")}
    program = {key: value for key, value in group.items() if key.startswith("accel:")}
    units: list[tuple[str, dict[str, str]]] = []
    for key, amount in group.items():
        kind, _, class_ = key.partition(":")
        if kind != "resources":
            continue
        if class_ in scheduler_request.HOST_CLASSES:
            raise errors.InvalidError(f"{class_} is a part of a server's size, no accelerator")
        asked = {f"resources:{class_}": "1", **traits}
        if class_ == orc.FPGA:
            if program and image_uuid is not None:
                raise errors.InvalidError(f"image_uuid: the device profile says already: {min(program)}")
            asked |= program if image_uuid is None else {"accel:bitstream_id": image_uuid}
        # One more than may be asked for says enough.
        units += [(class_, asked)] * min(int(amount), _MOST + 1)
    return units


def _admit(session: Session, project_id: str, count: int, most: int) -> None:
    if most == quotas.UNLIMITED:
        return
    quotas.lock(session, "project", project_id)
    query = select(func.count()).select_from(Row).where(Row.project_id == project_id, Row.plug_id.is_(None))
    has = session.scalar(query) or 0
    if has + count > most:
        raise errors.QuotaExceededError(
            f"Quota exceeded for accelerator_requests: Requested {count}, but already used {has} of {most} that a "
            "project may have bound to nothing. Bind or delete some."
        )


def to_bind(
    session: Session, binding: Binding, plugs: Mapping[str, str], *, project_id: str | None, admin: bool
) -> tuple[Server, list[Wanted]]:
    """Return a server, locked, and what is to be attached to it; what is bound so already is not among it.

    :param plugs: the id that each is to be an accelerator by, by the request's uuid
    :raises accelsched.errors.NotFoundError: there is no such server, or request
    :raises accelsched.errors.ForbiddenError: one is of a server's flavor
    :raises accelsched.errors.ConflictError: saying what stands against it
    """
    server = servers.alive(session, binding.server_uuid, project_id)
    rows = _locked(session, binding.devices, project_id=project_id)
    if server.host != binding.host:
        raise errors.ConflictError(f"Instance {server.uuid} is not on host {binding.host}")
    if binding.project_id not in (None, server.project_id):
        raise errors.ConflictError(f"Instance {server.uuid} is not of project {binding.project_id}")
    wanted = []
    for row in rows:
        now, device = _as_it_is(session, row), binding.devices[row.uuid]
        if now.server is None:
            specs = profiles.spelled(row.asked, accelerators.suffix_of(plugs[row.uuid]))
            wanted.append(Wanted(plugs[row.uuid], specs, device))
        elif (now.server.uuid, now.provider_uuid, row.forget) != (server.uuid, device, False):
            raise errors.ConflictError(
                f"Accelerator request {row.uuid} is {now.state}, to instance {now.server.uuid}; unbind it first"
            )
    if wanted:
        accelerators.ready(session, server.uuid, project_id=project_id, admin=admin)
    return server, wanted


def bind(
    session: Session,
    binding: Binding,
    plugs: Mapping[str, str],
    chosen: Sequence[Chosen],
    origin: Origin,
    *,
    project_id: str | None,
    admin: bool,
) -> list[tuple[str, str]]:
    """Claim what was chosen, and have it attached.

    :returns: (agent, host) to tell
    :raises accelsched.errors.AccelschedError: as :func:`to_bind` and :func:`accelsched.compute.accelerators.attach` do
    """
    server, wanted = to_bind(session, binding, plugs, project_id=project_id, admin=admin)
    left = {one.id for one in wanted}
    if not left:
        return []  # somebody else has asked for the same meanwhile
    told = accelerators.attach(
        *(session, server.uuid, [one for one in chosen if one.id in left], origin), project_id=project_id, admin=admin
    )
    for row in _locked(session, binding.devices, project_id=project_id):
        if plugs[row.uuid] in left:
            row.server_id, row.plug_id, row.project_id = server.id, plugs[row.uuid], server.project_id
            row.unbound_state, row.forget = bindings.UNBOUND, False
    return told


def release(
    session: Session,
    request_uuids: Collection[str],
    origin: Origin,
    *,
    forget: bool,
    project_id: str | None,
    admin: bool,
) -> list[tuple[str, str]]:
    """Have requests unbound. What is unbound already stays so.

    :param forget: and have them go; what is bound goes once its guest has let it go
    :returns: (agent, host) to tell
    :raises accelsched.errors.NotFoundError: there is no such request
    :raises accelsched.errors.ForbiddenError: one is of a server's flavor
    :raises accelsched.errors.ConflictError: saying what stands against it
    """
    of_servers = select(Row.server_id).where(Row.uuid.in_(request_uuids), Row.server_id.is_not(None))
    query = select(Server).where(Server.id.in_(of_servers.scalar_subquery()))
    found = {server.id: server for server in session.scalars(query.order_by(Server.id).with_for_update())}
    leaving: dict[int, list[str]] = {}
    for row in _locked(session, request_uuids, project_id=project_id):
        if row.server_id is not None and row.server_id not in found:
            raise errors.LostRaceError(f"accelerator request {row.uuid} was bound meanwhile")
        now = _as_it_is(session, row)
        if now.server is None:
            row.server_id = row.plug_id = None
            row.unbound_state = bindings.UNBOUND
            if forget:
                session.delete(row)
            continue
        row.forget |= forget
        goes = forget and now.server.desired == "deleted"  # and this with it
        if not goes and not _leaves(now.server, str(row.plug_id)):
            leaving.setdefault(now.server.id, []).append(str(row.plug_id))
    told = []
    for server_id, plugs in leaving.items():
        server = found[server_id]
        told += accelerators.detach(session, server.uuid, plugs, origin, project_id=project_id, admin=admin)
    return told


def remove_of_server(
    session: Session, server_uuid: str, origin: Origin, *, project_id: str | None, admin: bool
) -> list[tuple[str, str]]:
    """Have all that is bound to a server go, as :func:`release` does; nothing when that, or the server, is gone."""
    found = requests.list_(session, project_id=project_id, server_uuid=server_uuid, most=_MOST)
    return release(*(session, [one.uuid for one in found], origin), forget=True, project_id=project_id, admin=admin)


def _locked(session: Session, request_uuids: Collection[str], *, project_id: str | None) -> list[Row]:
    """Return the rows of requests, locked."""
    query = select(Row).where(Row.uuid.in_(request_uuids)).order_by(Row.id).with_for_update()
    if project_id is not None:
        query = query.where(Row.project_id == project_id)
    rows = list(session.scalars(query))
    for missing in sorted(set(request_uuids) - {row.uuid for row in rows}):
        other = requests.get(session, missing, project_id=project_id)
        raise errors.ForbiddenError(_BY_SERVERS.format(missing, other.server.uuid if other.server else ""))
    return rows


def _as_it_is(session: Session, row: Row) -> AcceleratorRequest:
    return requests.of_row(row, None if row.server_id is None else session.get(Server, row.server_id))


def _leaves(server: Server, plug_id: str) -> bool:
    return any(
        device["plug"]["id"] == plug_id and device["plug"]["state"] == accelerators.DETACHING
        for device in accelerators.plugged(server)
    )
