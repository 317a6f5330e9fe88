# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Claims that wait at the same time go into one transaction.

A transaction of one claim costs the database mostly what comes with any transaction: round trips, the feed's lock, a
flush to disk. So of the threads that want to claim at once, one takes all that wait, decides them one after the other
in one transaction, and gives each its own answer after the commit.

It waits a few milliseconds for those that were there a moment ago: whoever was answered comes again just after, and
would wait for a whole transaction, if this one began without it. Where claims come one by one nobody waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from oslo_db import exception as db_exception

from accelsched.db.engine import Database
from accelsched.placement import claims
from accelsched.placement.claims import Claim, ConsumerAllocation

_MOST_TOGETHER = 64
_GATHERED_S = 0.005  # at most; a transaction takes as long


class ClaimQueue:
    """One a process. Threads that call :meth:`replace` at the same time share transactions."""

    def __init__(self, db: Database) -> None:
        """Claim from this database."""
        self._db = db
        self._lock = threading.Lock()  # for what follows
        self._gathered = threading.Condition(self._lock)
        self._waiting: deque[_Ticket] = deque()
        self._led = False  # whether a thread is at work
        self._company = 0  # how many were there when a transaction ended, its own and those that waited

    def replace(self, changes: Sequence[ConsumerAllocation]) -> None:
        """Do what :func:`accelsched.placement.claims.replace` does, in a transaction that is committed on return.

        :raises Exception: what that raises, and what :meth:`accelsched.db.engine.Database.transact` does
        """
        ticket = _Ticket(Claim(changes))
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
        if ticket.refusal is not None:
            raise ticket.refusal

    def _lead(self, own: _Ticket) -> None:
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
                # Whoever waits longest: its own claim is among those that it will take.
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
            for ticket in batch:
                if ticket is not own:
                    ticket.turn.release()
            if following is not None:
                following.turn.release()

    def _take(self) -> list[_Ticket]:
        """Take claims in their order, up to one whose consumer is in the batch already."""
        batch: list[_Ticket] = []
        consumers: set[str] = set()
        while self._waiting and len(batch) < _MOST_TOGETHER:
            wanted = {change.consumer_uuid for change in self._waiting[0].claim.changes}
            if consumers & wanted:
                break
            consumers |= wanted
            batch.append(self._waiting.popleft())
        return batch

    def _serve(self, batch: Sequence[_Ticket]) -> None:
        """Decide all of a batch in one transaction, or each in its own when they cannot go together."""
        together = [ticket.claim for ticket in batch]
        try:
            refusals = self._db.transact(lambda session: claims.replace_each(session, together))
        except db_exception.DBConnectionError as exc:
            # Perhaps during the commit: nobody knows whether it took, so it must not be repeated.
            for ticket in batch:
                ticket.refusal = exc
        except Exception as exc:
            if len(batch) == 1:
                batch[0].refusal = exc
                return
            # One has a number that the database cannot hold, say: the others shall not suffer.
            for ticket in batch:
                self._serve([ticket])
        else:
            for ticket, refusal in zip(batch, refusals, strict=True):
                ticket.refusal = refusal


class _Ticket:
    """A claim and what became of it. ``turn`` is released when it is done, or when its thread has to lead."""

    __slots__ = ("claim", "done", "refusal", "turn")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.done = False
        # Until a commit says otherwise.
        self.refusal: Exception | None = RuntimeError("the claim was not decided")
        self.turn = threading.Lock()
        self.turn.acquire()
