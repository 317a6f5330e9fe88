# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes that wait at the same time go into one transaction.

A transaction of one write costs the database mostly what comes with any transaction: round trips, the feed's lock, a
flush to disk. So of the threads that want to write at once, one takes all that wait, decides them one after the other
in one transaction, and gives each its own answer after the commit.

It waits a few milliseconds for those that were there a moment ago: whoever was answered comes again just after, and
would wait for a whole transaction, if this one began without it. Where writes come one by one nobody waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, Protocol, TypeVar

from oslo_db import exception as db_exception
from sqlalchemy.orm import Session

from accelsched.db.engine import Database

_MOST_TOGETHER = 64
_GATHERED_S = 0.005  # at most; a transaction takes as long


class Write(Protocol):
    """What goes through a queue."""

    @property
    def subjects(self) -> Collection[str]:
        """What it is about: of two writes about the same one waits for the other's transaction."""
        ...


W = TypeVar("W", bound=Write)

Decide = Callable[[Session, Sequence[W]], Sequence[Any]]
"""Does several writes in a session; returns for each its result, or the error that refuses it and changes nothing."""


class WriteQueue(Generic[W]):
    """One a process and kind of write. Threads that call :meth:`write` at the same time share transactions."""

    def __init__(self, db: Database, decide: Decide[W]) -> None:
        """Write to this database."""
        self._db = db
        self._decide = decide
        self._lock = threading.Lock()  # for what follows
        self._gathered = threading.Condition(self._lock)
        self._waiting: deque[_Ticket[W]] = deque()
        self._led = False  # whether a thread is at work
        self._company = 0  # how many were there when a transaction ended, its own and those that waited

    def write(self, write: W) -> Any:
        """Do a write in a transaction that is committed on return.

        :returns: what was decided
        :raises Exception: why it was refused, or what :meth:`accelsched.db.engine.Database.transact` raises
        """
        ticket = _Ticket(write)
        with self._lock:
            self._waiting.append(ticket)
            if len(self._waiting) >= self._company:
                self._gathered.notify()
            leads = not self._led
            self._led = True
        if not leads:
            ticket.turn.acquire()
        if not ticket.done:
            self._lead(ticket)
        if isinstance(ticket.outcome, Exception):
            raise ticket.outcome
        return ticket.outcome

    def _lead(self, own: _Ticket[W]) -> None:
        """Serve the oldest that wait, ``own`` among them, then let the next thread lead."""
        with self._lock:
            self._gathered.wait_for(lambda: len(self._waiting) >= self._company, _GATHERED_S)
            batch = self._take()
        try:
            self._serve(batch)
        finally:
            for ticket in batch:
                ticket.done = True
            with self._lock:
                self._company = min(len(batch) + len(self._waiting), _MOST_TOGETHER)
                # Whoever waits longest: its own write is among those that it will take.
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
            for ticket in batch:
                if ticket is not own:
                    ticket.turn.release()
            if following is not None:
                following.turn.release()

    def _take(self) -> list[_Ticket[W]]:
        """Take writes in their order, up to one that is about something in the batch already."""
        batch: list[_Ticket[W]] = []
        subjects: set[str] = set()
        while self._waiting and len(batch) < _MOST_TOGETHER:
            wanted = self._waiting[0].write.subjects
            if not subjects.isdisjoint(wanted):
                break
            subjects.update(wanted)
            batch.append(self._waiting.popleft())
        return batch

    def _serve(self, batch: Sequence[_Ticket[W]]) -> None:
        """Decide all of a batch in one transaction, or each in its own when they cannot go together."""
        together = [ticket.write for ticket in batch]
        try:
            outcomes = self._db.transact(lambda session: self._decide(session, together))
        except db_exception.DBConnectionError as exc:
            # Perhaps during the commit: nobody knows whether it took, so it must not be repeated.
            for ticket in batch:
                ticket.outcome = exc
        except Exception as exc:
            if len(batch) == 1:
                batch[0].outcome = exc
                return
            # One has a number that the database cannot hold, say: the others shall not suffer.
            for ticket in batch:
                self._serve([ticket])
        else:
            for ticket, outcome in zip(batch, outcomes, strict=True):
                ticket.outcome = outcome


class _Ticket(Generic[W]):
    """A write and what became of it. ``turn`` is released when it is done, or when its thread has to lead."""

    __slots__ = ("done", "outcome", "turn", "write")

    def __init__(self, write: W) -> None:
        self.write = write
        self.done = False
        # Until a commit says otherwise.
        self.outcome: Any = RuntimeError("the write was not decided")
        self.turn = threading.Lock()
        self.turn.acquire()
