# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""When hosts or their aggregates changed: what a scheduler compares before it reads thousands of them again.

Heartbeats do not count. The row is locked from its update to the commit, so numbers are in the order of commits, and
who reads one in a snapshot sees every change up to it there, as with :mod:`accelsched.db.feed`.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from accelsched.db.compute import HostsHead

_ID = 1


def advance(session: Session) -> None:
    """Note that the session's transaction changes hosts or aggregates. After providers are locked, not before."""
    session.flush()
    session.execute(
        update(HostsHead)
        .where(HostsHead.id == _ID)
        .values(seq=HostsHead.seq + 1)
        .execution_options(synchronize_session=False)
    )


def read(session: Session) -> int:
    """Return the number of the newest committed change."""
    return session.scalars(select(HostsHead.seq).where(HostsHead.id == _ID)).one()
