# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Heartbeats: which hosts were heard of when, gathered in each process and written together."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from oslo_log import log
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from accelsched.db.base import utcnow
from accelsched.db.compute import Heartbeat, Host
from accelsched.db.engine import Database

LOG = log.getLogger(__name__)


def write(session: Session, host_ids: Collection[int]) -> set[int]:
    """Note that hosts are alive now.

    :param host_ids: of hosts that have been heard of before
    :returns: those of them that are there
    """
    beat = (
        update(Heartbeat)
        .where(Heartbeat.host_id.in_(host_ids))
        .values(seen_at=utcnow())
        .execution_options(synchronize_session=False)
    )
    if session.execute(beat).rowcount == len(host_ids):  # type: ignore[attr-defined]
        return set(host_ids)
    return set(session.scalars(select(Heartbeat.host_id).where(Heartbeat.host_id.in_(host_ids))))


def begin(session: Session, host_id: int) -> None:
    """Note that a host was heard of for the first time."""
    session.execute(insert(Heartbeat).values(host_id=host_id, seen_at=utcnow()))


class Heartbeats:
    """Those that reach one process. What it gathered and did not write when it dies is said again soon enough."""

    def __init__(self, db: Database, gather_s: float = 1.0) -> None:
        """
        :param gather_s: seconds after which what was gathered is written; ``service_down_time`` is many times that
        """
        self._db = db
        self._gather_s = gather_s
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}  # of hosts that were there when something was last written
        self._gathered: set[str] = set()

    def note(self, names: Sequence[str]) -> list[str]:
        """Note that hosts are alive: at once those that this process hears of first, others within ``gather_s``.

        :returns: those that are not known, and must be reported; one that is forgotten meanwhile is so at its next beat
        """
        with self._lock:
            new = [name for name in names if name not in self._ids]
            if len(new) < len(names):
                if not self._gathered:
                    timer = threading.Timer(self._gather_s, self._write_gathered)
                    timer.daemon = True
                    timer.start()
                self._gathered.update(name for name in names if name in self._ids)
        if not new:
            return []
        there = self._db.transact(lambda session: _write_named(session, new))
        with self._lock:
            self._ids |= there
        return [name for name in new if name not in there]

    def _write_gathered(self) -> None:
        with self._lock:
            ids = {name: self._ids[name] for name in self._gathered if name in self._ids}
            self._gathered = set()
        try:
            there = self._db.transact(lambda session: write(session, ids.values()))
        except Exception as exc:  # the next beats are written at once, and their agents told when that fails as well
            LOG.warning("Heartbeats of %d hosts could not be written: %s", len(ids), exc)
            there = set()
        with self._lock:
            for name, id_ in ids.items():
                if id_ not in there:
                    self._ids.pop(name, None)


def _write_named(session: Session, names: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = dict(session.execute(select(Host.name, Host.id).where(Host.name.in_(names))).all())
    there = write(session, ids.values())
    return {name: id_ for name, id_ in ids.items() if id_ in there}
