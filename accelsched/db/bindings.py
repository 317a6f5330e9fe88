# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of accelerator requests when what they are bound as does, in the transaction in which it does.

A request is bound as an accelerator that is plugged into a server, see :mod:`accelsched.compute.accelerators`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from accelsched.db.accelerator import AcceleratorRequest

FAILED, UNBOUND = "BindFailed", "Unbound"
_NOTHING = {"server_id": None, "plug_id": None}


def ended(session: Session, plug_id: str, *, failed: bool) -> None:
    """Note that an accelerator is a server's no longer.

    :param failed: because it could not be attached
    """
    _forget(session, AcceleratorRequest.plug_id == plug_id, AcceleratorRequest.forget)
    _change(session, AcceleratorRequest.plug_id == plug_id, **_NOTHING, unbound_state=FAILED if failed else UNBOUND)


def kept(session: Session, plug_id: str) -> None:
    """Note that an accelerator stays with its server, whose guest did not let it go."""
    _change(session, AcceleratorRequest.plug_id == plug_id, forget=False)


def server_gone(session: Session, server_id: int, plug_ids: Collection[str]) -> None:
    """Forget what was bound to a server that is gone.

    :param plug_ids: what it had until then; what was bound to it before and lost with its host is bound to nothing now
    """
    of_server = AcceleratorRequest.server_id == server_id
    if session.scalar(select(AcceleratorRequest.id).where(of_server).limit(1)) is None:
        return
    _forget(session, of_server, or_(AcceleratorRequest.plug_id.in_(plug_ids), AcceleratorRequest.forget))
    _change(session, of_server, **_NOTHING)


def _forget(session: Session, *conditions: Any) -> None:
    session.execute(delete(AcceleratorRequest).where(*conditions).execution_options(synchronize_session=False))


def _change(session: Session, *conditions: Any, **values: object) -> None:
    session.execute(
        update(AcceleratorRequest).where(*conditions).values(values).execution_options(synchronize_session=False)
    )
