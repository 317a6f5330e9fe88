# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts: what their agents report, and whether they are alive."""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from typing import cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from accelsched import errors, names, wire
from accelsched.compute import devices, hearing, heartbeats
from accelsched.db import hosts_head
from accelsched.db.base import utcnow
from accelsched.db.compute import ControlPlane, Host
from accelsched.placement import trees


def report(session: Session, told: wire.HostReport, control_plane: str | None = None) -> str:
    """Take over a host's picture of itself. A report that says what the last one said changes nothing.

    :param control_plane: the one that the host says it belongs to; None when it belongs to none yet
    :returns: which control plane this is
    :raises accelsched.errors.ConflictError: when another node goes by the same name, or the host belongs elsewhere
    :raises accelsched.errors.InvalidError: when the report does not make sense
    """
    this = check_control_plane(session, control_plane)
    host = session.scalars(select(Host).where(Host.name == told["host"]).with_for_update()).one_or_none()
    if host is not None and host.node_uuid != told["node_uuid"]:
        raise errors.ConflictError(
            f"host {told['host']} is known as node {host.node_uuid}, not {told['node_uuid']}; if it was installed "
            "anew, give the agent its old state directory back, or the host another [agent] host name"
        )
    if told["providers"] and told["providers"][0]["uuid"] != told["node_uuid"]:
        raise errors.InvalidError("the root provider's uuid is not the node's")
    version = told.get("rpc_version", "1.0")
    if _parsed(version)[0] != _parsed(wire.AGENT_VERSION)[0]:
        raise errors.ConflictError(
            f"this agent speaks RPC version {version}, and this control plane {wire.AGENT_VERSION}: upgrade one of them"
        )
    heard = hearing.take(host.heard if host else None, told["host"], told.get("said"))
    if heard is None:
        return this
    told = cast("wire.HostReport", {key: value for key, value in told.items() if key != "said"})
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    is_new = host is None
    if host is None:
        host = Host(name=told["host"], service_uuid=str(uuid.uuid4()), node_uuid=told["node_uuid"], reported={})
    host.heard = heard
    if host.report_digest == digest:
        devices.end_shortfalls(session, host.name)
        heartbeats.write(session, [host.id])
        return this
    providers = told["providers"]
    if providers and understands(version, "1.1"):
        root, *others = providers
        providers = [{**root, "traits": [*root["traits"], names.RPC_1_1]}, *others]
    devices.note_faults(session, host, trees.apply(session, providers, host.reported, told.get("numa")))
    host.agent = told["agent"]
    host.rpc_version = version
    host.simulated = told["simulated"]
    host.hypervisor = dict(told["hypervisor"])
    host.report_digest = digest
    host.reported = {provider["uuid"]: dict(provider) for provider in providers}
    session.add(host)  # not before it is whole: queries above would write it as it is
    if is_new:
        session.flush()
        heartbeats.begin(session, host.id)
    else:
        heartbeats.write(session, [host.id])
    hosts_head.advance(session)
    return this


def check_control_plane(session: Session, claimed: str | None) -> str:
    """Refuse agents of another control plane: they would remove what nobody here wants, and nobody here knows it.

    :param claimed: the one that the agent says it belongs to; None when it belongs to none yet
    :returns: which control plane this is
    :raises accelsched.errors.ConflictError: when the agent belongs to another one
    """
    this = session.scalars(select(ControlPlane.uuid)).one()
    if claimed not in (None, this):
        raise errors.ConflictError(
            f"this agent belongs to control plane {claimed}, and control plane {this} answers: are transport_url and "
            "[database] connection the right ones? To hand the agent over, delete its servers, then the file "
            "control_plane in its state directory"
        )
    return this


def note_build(session: Session, name: str, *, failed: bool) -> None:
    """Count a build that failed against its host; one that succeeded wipes the slate clean."""
    change = update(Host).where(Host.name == name).execution_options(synchronize_session=False)
    if failed:
        changed = session.execute(change.values(failed_builds=Host.failed_builds + 1))
    else:
        changed = session.execute(change.where(Host.failed_builds > 0).values(failed_builds=0))
    if changed.rowcount:  # type: ignore[attr-defined]
        hosts_head.advance(session)


def understands(version: str, needed: str) -> bool:
    """Tell whether an agent of a version understands what came with another one, of the same major version."""
    return _parsed(version) >= _parsed(needed)


def check_understands(host: Host, needed: str, action: str, uuid: str) -> None:
    """Refuse what the agent of a server's host would not understand, and leave undone without a word.

    :param needed: version of :mod:`accelsched.wire` that the action came with
    :raises accelsched.errors.ConflictError: naming both versions
    """
    if not understands(host.rpc_version, needed):
        raise errors.ConflictError(
            f"Cannot '{action}' instance {uuid}: the agent of host {host.name} speaks RPC version {host.rpc_version}, "
            f"and this takes {needed}. Upgrade the agent."
        )


def _parsed(version: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError:
        raise errors.InvalidError(f"{version!r} is no RPC version") from None


def agent_of(session: Session, name: str) -> str | None:
    """Return the agent that stands for a host; None when nobody does."""
    return session.scalar(select(Host.agent).where(Host.name == name))


def is_forced_down(session: Session, name: str | None) -> bool:
    """Tell whether an operator said that a host is off, or cut off from all that its servers share with others."""
    return bool(session.scalar(select(Host.forced_down).where(Host.name == name)))


def is_up(host: Host, service_down_time_s: int, now: datetime.datetime | None = None) -> bool:
    """Tell whether the host's agent was heard of lately and nobody forced it down."""
    age = (now or utcnow()) - host.last_seen_at
    return not host.forced_down and age <= datetime.timedelta(seconds=service_down_time_s)
