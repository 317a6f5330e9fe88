# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Write down what users had done to servers, and how that went: Nova's instance actions, at most one event each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from accelsched.context import RequestContext
from accelsched.db.base import utcnow
from accelsched.db.compute import InstanceAction

_INSERT_BATCH = 1000


@dataclass(frozen=True)
class Origin:
    """Whose request an action comes from."""

    request_id: str
    project_id: str
    user_id: str

    @classmethod
    def of(cls, context: RequestContext) -> Origin:
        """Return the origin of what a request asks for."""
        return cls(context.request_id or "", context.project_id or "", context.user_id or "")


def begin(
    session: Session,
    server_ids: Iterable[int],
    action: str,
    origin: Origin,
    *,
    event: str | None = None,
    order_number: int | None = None,
    host: str | None = None,
) -> None:
    """Write down that an action was asked for.

    :param event: what has to happen for it; None when nothing has to, then it is finished
    :param order_number: of the power order that it is
    """
    now = utcnow()
    common = {
        "action": action,
        "event": event,
        "request_id": origin.request_id,
        "project_id": origin.project_id,
        "user_id": origin.user_id,
        "order_number": order_number,
        "host": host,
        "started_at": now,
        "updated_at": now,
        "finished_at": None if event else now,
    }
    rows = [{**common, "server_id": server_id} for server_id in server_ids]
    for start in range(0, len(rows), _INSERT_BATCH):
        session.execute(insert(InstanceAction), rows[start : start + _INSERT_BATCH])


def finish(
    session: Session,
    server_ids: Iterable[int],
    *,
    action: str | None = None,
    up_to_order: int | None = None,
    host: str | None = None,
    fault: Mapping[str, Any] | None = None,
) -> None:
    """Write down how what is not finished yet went.

    :param action: only actions of this name
    :param up_to_order: only power orders, up to this number: a newer one overtakes the older
    :param host: where it happened
    :param fault: wire.Fault; None when it went well
    """
    now = utcnow()
    change = update(InstanceAction).where(
        InstanceAction.server_id.in_(list(server_ids)), InstanceAction.finished_at.is_(None)
    )
    if action is not None:
        change = change.where(InstanceAction.action == action)
    if up_to_order is not None:
        change = change.where(InstanceAction.order_number <= up_to_order)
    values = {"finished_at": now, "updated_at": now, "fault": None if fault is None else dict(fault)}
    session.execute(
        change.values(values if host is None else {**values, "host": host}).execution_options(synchronize_session=False)
    )
