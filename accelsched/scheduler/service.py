# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The scheduler's process: takes pending requests, one after the other, and sees each through.

Requests lie in the database. A message only says that it is worth looking now. A request is leased while a scheduler
works on it; when that one dies, another takes it over where it stands, for every step is written down in the same
transaction as what it did.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import socket
import threading
import uuid
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
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import claim
from accelsched.scheduler.claim import Taken
from accelsched.scheduler.decider import Decider
from accelsched.scheduler.pipeline import Decision, Selection
from accelsched.scheduler.request import RequestSpec

LOG = log.getLogger(__name__)

_PRUNE_EVERY_S = 600.0
# Changes that a process may be behind before it reads the whole fleet anew.
_FEED_KEPT = 100_000


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
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                while not self._stopping.is_set() and self._take_one():
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

    def _take_one(self) -> bool:
        """Work on the oldest request that nobody works on.

        :returns: whether there was one
        """
        request = self._db.transact(self._lease)
        if request is None:
            return False
        spec = RequestSpec.from_dict(request.spec)
        won: list[tuple[str, Selection]] = []
        with self._db.reading() as session:
            unplaced = claim.unplaced(session, request)
            decided = claim.decisions(session, request.id)  # before builds failed, or by a scheduler that died
        wanted = len(unplaced)
        failed = {host for server in unplaced for host in server.failed_hosts}
        spec = dataclasses.replace(spec, ignore_hosts=(*spec.ignore_hosts, *sorted(failed)))
        failure = None
        too_few = False
        attempt = 0
        if not wanted:  # whoever died placed all of them, or they were deleted
            self._db.transact(lambda session: self._finish(session, request))
        while wanted:
            decision = self._decider.decide(spec, wanted, f"{request.uuid}/{decided + attempt}")
            taken, wanted = self._write(request, decision, decided + attempt)
            won += taken.won
            failure = decision.explanation.failure
            if failure is not None and not taken.lost:
                too_few = taken.too_few and len(decision.selections) > 0
                break
            attempt += 1
            if attempt >= self._conf.scheduler.claim_attempts:
                failure = f"No valid host was found. Lost {attempt} races for the same devices in a row."
                break
        if wanted:
            failure = failure or "No valid host was found."
            if too_few:
                failure += f" Fewer than min_count ({request.min_count}) servers fit, so none was placed."
            self._db.transact(lambda session: self._give_up(session, request, failure))
        self._tell_agents(won)
        LOG.info("Request %s: %d of %d servers placed", request.uuid, len(won), request.count)
        return True

    def _lease(self, session: Session) -> Request | None:
        now = utcnow()
        free = or_(Request.lease_until.is_(None), Request.lease_until < now)
        request = session.scalars(
            select(Request)
            .where(Request.state == "pending", free)
            .order_by(Request.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if request is not None:
            request.worker = self._name
            request.lease_until = now + datetime.timedelta(seconds=self._conf.scheduler.lease_seconds)
        return request

    def _write(self, request: Request, decision: Decision, attempt: int) -> tuple[Taken, int]:
        """Claim a decision; when no server wants a host after it, the request is done with the same transaction.

        :returns: what came of it, how many servers still want a host
        """

        def write(session: Session) -> tuple[Taken, int]:
            taken = claim.take(session, request, decision.selections)
            explanation = decision.explanation.to_dict()
            explanation["selections"] = {
                uuid_: {
                    "host": selection.host.name,
                    "devices": list(selection.devices),
                    **({"numa": claim.numa_of(selection)} if selection.numa else {}),
                    **_scores(selection),
                }
                for uuid_, selection in taken.won
            }
            claim.explain(session, request.id, attempt, explanation)
            wanted = claim.count_unplaced(session, request)
            if not wanted:
                self._finish(session, request)
            return taken, wanted

        try:
            return self._db.transact(write)
        except errors.ConflictError as exc:
            # A consumer appeared under our hands, or an inventory went: look again.
            LOG.info("Request %s: claim lost: %s", request.uuid, exc)
            return Taken([], lost=True), len(decision.selections)

    def _give_up(self, session: Session, request: Request, failure: str) -> None:
        claim.give_up(session, request, failure)
        self._finish(session, request)

    def _finish(self, session: Session, request: Request) -> None:
        session.execute(
            update(Request)
            .where(Request.id == request.id)
            .values(state="done", worker=None, lease_until=None)
            .execution_options(synchronize_session=False)
        )

    def _tell_agents(self, won: list[tuple[str, Selection]]) -> None:
        by_agent: dict[str, set[str]] = {}
        for _, selection in won:
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


def _scores(selection: Selection) -> dict[str, Any]:
    score = selection.score
    return {"score": score.host.score, "weighers": score.host.weighers, "device_scores": score.devices}
