# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The rows of servers that move: where they are, and what is wanted of them there.

A server's row says where it is just now, its migration's what it was where it comes from and is to be where it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import wire
from accelsched.db.base import utcnow
from accelsched.db.compute import Migration, Server, as_iso

Power = Literal["running", "stopped", "paused", "suspended", "rescued", "aside", "away"]
Reboot = Literal["soft", "hard"]

LIVE = "live-migration"
"""Type of the migrations of servers that run meanwhile, see :mod:`accelsched.compute.live_migration`."""
LIVE_TASK = "migrating"


class Tried(TypedDict):
    """A host that a server could not go to as it runs, which was found out before anything moved."""

    host: str
    message: str
    details: str
    began: str | None  # ISO 8601
    ended: str | None


def wish(
    server: Server, power: Power, reboot: Reboot | None = None, beside: Mapping[str, Any] | None = None
) -> wire.PowerOrder:
    """Write down what a server is to be, as its next order, and return that."""
    number: int = (server.power_order["number"] if server.power_order else 0) + 1
    wanted: wire.PowerOrder = {"number": number, "power": power, "reboot": reboot}
    server.power_order = {**wanted, **(beside or {})}
    return wanted


def on_same_host(migration: Migration) -> bool:
    """Tell whether a server changes its size where it is."""
    return migration.dest_host == migration.source_host


def is_live(migration: Migration) -> bool:
    """Tell whether a server runs while it moves."""
    return migration.type == LIVE


def place(
    session: Session,
    migration: Migration,
    server: Server,
    host: str,
    node_uuid: str,
    devices: Sequence[Mapping[str, Any]],
    numa: Sequence[Mapping[str, Any]] | None,
) -> None:
    """Write down where a server is to go, and have it set aside where it is; on the same host it goes there at once.

    One that is to run meanwhile stays as it is, until all is ready for it there.
    """
    migration.dest_host, migration.dest_node = host, node_uuid
    same = on_same_host(migration)
    migration.target = {
        **migration.target,
        "devices": [dict(device) for device in devices],
        "numa": None if numa is None else [dict(node) for node in numa],
        "incarnation": server.incarnation if same else _next_incarnation(session, server),
        "placed_at": as_iso(utcnow()),
    }
    source = {
        "flavor": server.flavor,
        "devices": server.devices,
        "numa": server.numa,
        "incarnation": server.incarnation,
    }
    migration.power = server.state if server.state in ("stopped", "paused") else "running"
    migration.source = source
    if is_live(migration):
        _step(migration, server, "preparing", LIVE_TASK)
        return
    if same:
        arrive(migration, server)
        return
    migration.source = {**source, "order": wish(server, "aside")}
    _step(migration, server, "migrating", "resize_migrating")


def _next_incarnation(session: Session, server: Server) -> int:
    """Return a number that no incarnation of a server had on any host: of one that went back something may be left."""
    targets = session.scalars(select(Migration.target).where(Migration.server_id == server.id))
    return 1 + max(server.incarnation, *(int(target.get("incarnation", 0)) for target in targets))


def arrive(migration: Migration, server: Server) -> None:
    """Have a server be where it goes, as it was set aside where it comes from."""
    _be_at(server, migration.dest_host, migration.dest_node, migration.target)
    _do_as_before(migration, server)
    _step(migration, server, "post-migrating", "resize_finish")


def go_back(migration: Migration, server: Server, fault: wire.Fault | None) -> None:
    """Have a server be again what it was where it comes from.

    :param fault: why, when it is not because its owner wants it so
    """
    _be_at(server, migration.source_host, migration.source_node, migration.source)
    _do_as_before(migration, server)
    if fault is not None:
        migration.fault = dict(fault)
    _step(migration, server, "reverting", "resize_reverting")


def give_up(migration: Migration, server: Server, fault: wire.Fault) -> None:
    """Have a server that has not left go on where it is."""
    _do_as_before(migration, server)
    migration.fault = dict(fault)
    close(migration, server, "error")


def leave(migration: Migration, server: Server, destination: Mapping[str, Any]) -> None:
    """Order a server to go where it is awaited, as it runs.

    :param destination: wire.Destination
    """
    wish(server, "away", beside={"live": dict(destination)})
    _step(migration, server, "running", LIVE_TASK)


def land(migration: Migration, server: Server) -> None:
    """Have a server be where it has gone as it ran."""
    _be_at(server, migration.dest_host, migration.dest_node, migration.target)
    server.built = server.incarnation
    _do_as_before(migration, server)
    close(migration, server, "completed")
    server.updated_at = utcnow()


def stay(migration: Migration, server: Server, fault: wire.Fault, status: str) -> None:
    """Have a server that was to go as it runs stay.

    :param status: error or cancelled
    """
    if migration.status == "running":
        _do_as_before(migration, server)
    migration.fault = dict(fault)
    close(migration, server, status)
    server.updated_at = utcnow()


def tried(migration: Migration) -> list[Tried]:
    """Return where a server was to go as it runs and could not, the first tried first."""
    return cast("list[Tried]", migration.target.get("tried", []))


def note_tried(migration: Migration, fault: wire.Fault) -> None:
    """Write down that a server cannot go to the host that it was to go to as it runs."""
    one: Tried = {
        "host": migration.dest_host or "",
        "message": fault["message"],
        "details": fault["details"],
        "began": migration.target.get("placed_at"),
        "ended": as_iso(utcnow()),
    }
    migration.target = {**migration.target, "tried": [*tried(migration), one]}


def with_tried(migration: Migration, fault: wire.Fault) -> wire.Fault:
    """Return why a server stays, with what was tried before."""
    found = tried(migration)
    if not found or [one["message"] for one in found] == [fault["message"]]:
        return fault
    listed = "; ".join(f"{one['host']}: {one['message']}" for one in found)
    return {**fault, "message": f"{fault['message']} Tried in vain: {listed}"}


def queue_again(migration: Migration, server: Server) -> None:
    """Have a server that was to go as it runs wait for another host."""
    if migration.status == "running":
        _do_as_before(migration, server)
    migration.target = {key: value for key, value in migration.target.items() if key != "progress"}
    migration.dest_host = migration.dest_node = None
    _step(migration, server, "queued", LIVE_TASK)


def close(migration: Migration, server: Server, status: str) -> None:
    """Note that a move is over."""
    migration.status, migration.updated_at = status, utcnow()
    server.migration_id, server.task = None, None


def _be_at(server: Server, host: str | None, node_uuid: str | None, side: Mapping[str, Any]) -> None:
    server.host, server.node_uuid = host, node_uuid
    server.flavor, server.devices, server.numa = side["flavor"], side["devices"], side["numa"]
    server.incarnation = side["incarnation"]
    server.built = min(server.built, server.incarnation)


def _do_as_before(migration: Migration, server: Server) -> None:
    """Order what the server did before; by way of a reboot on the same host, so that it gets its other size."""
    if migration.power != "running":
        wish(server, "stopped" if migration.power == "stopped" else "paused")
    else:
        wish(server, "running", "soft" if on_same_host(migration) else None)


def _step(migration: Migration, server: Server, status: str, task: str) -> None:
    migration.status, server.task = status, task
    migration.updated_at = server.updated_at = utcnow()
