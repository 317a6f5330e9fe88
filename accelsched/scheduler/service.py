# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The scheduler's process: takes pending requests, and sees each through.

Small ones that wait at the same time are decided on one picture, one after the other, and claimed in one transaction:
most of what a request costs is the same for any number of them.

Requests lie in the database. A message only says that it is worth looking now. A request is leased while a scheduler
works on it; when that one dies, another takes it over where it stands, for every step is written down in the same
transaction as what it did.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import socket
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log
from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from accelsched import errors, rpc
from accelsched.db import feed
from accelsched.db.base import utcnow
from accelsched.db.compute import Decision as DecisionRow
from accelsched.db.compute import Request
from accelsched.db.engine import Database
from accelsched.failpoints import Point, reach
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import claim
from accelsched.scheduler.claim import Taken
from accelsched.scheduler.decider import Asked, Decider
from accelsched.scheduler.pipeline import Decision, Selection
from accelsched.scheduler.request import RequestSpec

LOG = log.getLogger(__name__)

_PRUNE_EVERY_S = 600.0
# Changes that a process may be behind before it reads the whole fleet anew.
_FEED_KEPT = 100_000


# What is placed together waits together, and for the slowest.
_MOST_TOGETHER = 16
_FEW_SERVERS = 50


@dataclasses.dataclass
class Work:
    """A request while it is seen through.

    :ivar wanted: how many of its servers still want a host
    :ivar decisions: that were made about it, by a scheduler that died too
    :ivar attempts: how many of these are ours
    :ivar failure: why those that still want a host get none
    """

    request: Request
    spec: RequestSpec
    wanted: int
    decisions: int
    attempts: int = 0
    placed: int = 0
    failure: str | None = None

    def count(self, decision: Decision, taken: Taken, wanted: int, most: int) -> None:
        """Add what came of a decision.

        :param most: attempts that may be made
        """
        self.decisions += 1
        self.attempts += 1
        self.placed += len(taken.won)
        self.wanted = wanted
        failure = decision.explanation.failure
        if not wanted:
            return
        if failure is not None and not taken.lost:
            too_few = f" Fewer than min_count ({self.request.min_count}) servers fit, so none was placed."
            self.failure = failure + too_few if taken.too_few and decision.selections else failure
        elif self.attempts >= most:
            self.failure = f"No valid host was found. Lost {self.attempts} races for the same devices in a row."


class Scheduler:
    """RPC endpoint of topic ``accelsched-scheduler``, and the thread that does the work."""

    target = rpc.endpoint_target()

    def __init__(self, conf: cfg.ConfigOpts, db: Database, fleet: Fleet, agents: rpc.AgentClient) -> None:
        """Load the plug-ins.

        :raises accelsched.errors.ConfigurationError: when one of them does not load
        """
        self._conf = conf
        self._db = db
        self._agents = agents
        self._decider = Decider(conf, db, fleet)
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._learning = threading.Thread(target=self._learn, name="forecast", daemon=True)

    def start(self) -> None:
        """Begin to work on requests."""
        self._learning.start()
        self._thread.start()

    def stop(self) -> None:
        """Finish the request at hand, then return."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._learning.join()

    @property
    def running(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread.is_alive()

    def place(self, _context: dict[str, Any]) -> None:
        """Look for requests now."""
        self._wake.set()

    def _run(self) -> None:
        pruned = utcnow() - datetime.timedelta(seconds=_PRUNE_EVERY_S)
        warm = False
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if not warm:
                    self._decider.warm_up()
                    warm = True
                while not self._stopping.is_set() and self._take_some():
                    pass
                if (utcnow() - pruned).total_seconds() >= _PRUNE_EVERY_S:
                    pruned = utcnow()
                    self._prune()
            except Exception:
                # The database may be away for a while; what was not written down is done again.
                LOG.exception("Scheduling failed; trying again in %s s", self._conf.scheduler.poll_interval)
            self._wake.wait(self._conf.scheduler.poll_interval)

    def _learn(self) -> None:
        """Keep what to expect fresh, where a plug-in asks for it, beside the decisions."""
        forecast = self._decider.forecast
        while forecast is not None and not self._stopping.is_set():
            try:
                forecast.refresh()
            except Exception:
                LOG.exception("What was placed could not be read; trying again")
            self._stopping.wait(self._conf.scheduler.outlook_interval)

    def _take_some(self) -> bool:
        """Work on the oldest request that nobody works on, and on those that can be placed together with it.

        :returns: whether there was one
        """
        requests = self._db.transact(self._lease)
        if not requests:
            return False
        reach(Point.SCHEDULER_REQUEST_LEASED)
        with self._db.reading() as session:
            works = _works(session, requests)
        if nothing_left := [work.request for work in works if not work.wanted]:
            # Whoever died placed all of them, or they were deleted.
            self._db.transact(lambda session: self._finish(session, nothing_left))
        works = [work for work in works if work.wanted]
        together = works
        while len(together) > 1:
            together = self._attempt(together)
        for work in works:
            while work.wanted and work.failure is None:
                self._attempt([work])
            if work.failure is not None:
                self._db.transact(functools.partial(self._give_up, work))
            LOG.info("Request %s: %d of %d servers placed", work.request.uuid, work.placed, work.request.count)
        return True

    def _lease(self, session: Session) -> list[Request]:
        """Take the oldest request that nobody works on, and with a small plain one further ones of that kind."""
        now = utcnow()
        free = or_(Request.lease_until.is_(None), Request.lease_until < now)
        query = (
            select(Request)
            .where(Request.state == "pending", free)
            .order_by(Request.id)
            .with_for_update(skip_locked=True)
        )
        leased = list(session.scalars(query.limit(1)))
        if leased and _joins(leased[0]):
            small = (Request.count <= _FEW_SERVERS, Request.server_id.is_(None), Request.group_uuid.is_(None))
            more = session.scalars(query.where(Request.id > leased[0].id, *small).limit(_MOST_TOGETHER - 1))
            leased += [request for request in more if _joins(request)]
        until = now + datetime.timedelta(seconds=self._conf.scheduler.lease_seconds)
        self._update(session, leased, worker=self._name, lease_until=until)
        return leased

    def _attempt(self, works: Sequence[Work]) -> list[Work]:
        """Decide and claim once; how far that went is written into the works.

        :returns: those that found hosts, some of which others were quicker with, and may try again
        """
        asked = [Asked(work.spec, work.wanted, f"{work.request.uuid}/{work.decisions}") for work in works]
        if len(works) == 1:
            decided = [(works[0], self._decider.decide(*asked[0]))]
        else:
            found = zip(works, self._decider.decide_each(asked), strict=True)
            # A failure is found again, and looked into, when the others' claims are in the database.
            decided = [(work, decision) for work, decision in found if decision.explanation.failure is None]
        won: list[Selection] = []
        reach(Point.SCHEDULER_DECIDED)
        written = self._write(decided)
        reach(Point.SCHEDULER_CLAIM_COMMITTED)
        for (work, decision), (taken, wanted) in zip(decided, written, strict=True):
            won += [selection for _, selection in taken.won]
            work.count(decision, taken, wanted, self._conf.scheduler.claim_attempts)
        self._tell_agents(won)
        return [work for work, _ in decided if work.wanted and work.failure is None]

    def _write(self, decided: Sequence[tuple[Work, Decision]]) -> list[tuple[Taken, int]]:
        """Claim decisions; a request of which no server wants a host after it is done with the same transaction.

        :returns: for each what came of it, and how many of its servers still want a host
        """
        if not decided:
            return []

        def write(session: Session) -> list[tuple[Taken, int]]:
            each = claim.take_each(session, [(work.request, decision.selections) for work, decision in decided])
            claim.explain(
                session,
                [
                    (work.request.id, work.decisions, _explanation(decision, taken))
                    for (work, decision), taken in zip(decided, each, strict=True)
                ],
            )
            requests = [work.request for work, _ in decided]
            wanted = claim.count_unplaced(session, requests)
            self._finish(session, [request for request in requests if not wanted[request.id]])
            reach(Point.SCHEDULER_CLAIM_WRITTEN)
            return [(taken, wanted[request.id]) for request, taken in zip(requests, each, strict=True)]

        try:
            return self._db.transact(write)
        except errors.ConflictError as exc:
            # A consumer appeared under our hands, or an inventory went: look again.
            LOG.info("Requests %s: claim lost: %s", ", ".join(work.request.uuid for work, _ in decided), exc)
            return [(Taken([], lost=True), work.wanted) for work, _ in decided]

    def _give_up(self, work: Work, session: Session) -> None:
        claim.give_up(session, work.request, work.failure or "")
        self._finish(session, [work.request])

    def _finish(self, session: Session, requests: Sequence[Request]) -> None:
        self._update(session, requests, state="done", worker=None, lease_until=None)

    @staticmethod
    def _update(session: Session, requests: Sequence[Request], **values: object) -> None:
        if requests:
            session.execute(
                update(Request)
                .where(Request.id.in_([request.id for request in requests]))
                .values(values)
                .execution_options(synchronize_session=False)
            )

    def _tell_agents(self, won: Sequence[Selection]) -> None:
        by_agent: dict[str, set[str]] = {}
        for selection in won:
            by_agent.setdefault(selection.host.agent, set()).add(selection.host.name)
        for agent, names in by_agent.items():
            try:
                self._agents.sync(agent, sorted(names))
            except Exception as exc:
                LOG.warning("Agent %s could not be told of new servers: %s", agent, exc)

    def _prune(self) -> None:
        oldest = utcnow() - datetime.timedelta(hours=self._conf.scheduler.explanation_retention_hours)
        self._db.transact(lambda session: session.execute(delete(DecisionRow).where(DecisionRow.created_at < oldest)))
        self._db.transact(lambda session: feed.prune(session, keep=_FEED_KEPT))


def _joins(request: Request) -> bool:
    """Tell whether a request can be placed together with others like it."""
    small = request.count <= _FEW_SERVERS and request.server_id is None and request.group_uuid is None
    return small and RequestSpec.from_dict(request.spec).plain


def _works(session: Session, requests: Sequence[Request]) -> list[Work]:
    unplaced = claim.unplaced(session, requests)
    decisions = claim.decisions(session, requests)  # before builds failed, or by a scheduler that died
    works: list[Work] = []
    for request in requests:
        spec = RequestSpec.from_dict(request.spec)
        failed = {host for server in unplaced[request.id] for host in server.failed_hosts}
        spec = dataclasses.replace(spec, ignore_hosts=(*spec.ignore_hosts, *sorted(failed)))
        works.append(Work(request, spec, len(unplaced[request.id]), decisions[request.id]))
    return works


def _explanation(decision: Decision, taken: Taken) -> dict[str, Any]:
    selections = {
        uuid_: {
            "host": selection.host.name,
            "devices": list(selection.devices),
            **({"numa": claim.numa_of(selection)} if selection.numa else {}),
            **_scores(selection),
        }
        for uuid_, selection in taken.won
    }
    return {**decision.explanation.to_dict(), "selections": selections}


def _scores(selection: Selection) -> dict[str, Any]:
    score = selection.score
    return {"score": score.host.score, "weighers": score.host.weighers, "device_scores": score.devices}
