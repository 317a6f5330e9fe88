# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What to expect, learned from what was placed so far: the shapes of recent requests, read from their table.

Read now and then and never while a decision waits. A new outlook takes the place of the old one as a whole, so a
decision has one or the other.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from oslo_config import cfg
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.compute import Request, Server
from accelsched.db.engine import Database
from accelsched.scheduler.outlook import Mix, Outlook, Shape
from accelsched.scheduler.planning.plan import Plan
from accelsched.scheduler.request import RequestSpec


class Forecast:
    """One a process.

    :ivar outlook: None before anything was placed
    """

    def __init__(self, conf: cfg.ConfigOpts, db: Database, make_plan: Callable[[Mix], Plan | None]) -> None:
        """
        :param make_plan: makes a plan for a mix on the fleet as it is; None where nobody asks for plans
        """
        self._conf = conf
        self._db = db
        self._make_plan = make_plan
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._counts: Counter[Shape] = Counter()
        self.outlook: Outlook | None = None

    def refresh(self) -> None:
        """Read again when it is ``[scheduler] outlook_interval`` seconds ago."""
        with self._lock:
            now = time.monotonic()
            if self._read_at is not None and now - self._read_at < self._conf.scheduler.outlook_interval:
                return
            with self._db.reading() as session:
                counts = placed(session, self._conf.scheduler.outlook_requests)
            if counts != self._counts:
                self._counts = counts
                self.outlook = Outlook(counts) if counts else None
            if self.outlook is not None and self.outlook.mix is not None:
                fresh = self.outlook.without_plan()
                fresh.follow(self._make_plan(self.outlook.mix))
                self.outlook = fresh
            self._read_at = now


def placed(session: Session, most: int) -> Counter[Shape]:
    """Return how many servers of each shape were placed by the most recent requests, deleted ones too.

    :param most: requests to look at
    """
    recent = (
        select(Server.request_id, func.count().label("servers"))
        .where(Server.host.is_not(None))
        .group_by(Server.request_id)
        .order_by(Server.request_id.desc())
        .limit(most)
        .subquery()
    )
    rows = session.execute(
        select(Request.spec, recent.c.servers)
        .join(recent, recent.c.request_id == Request.id)
        # From old to new, so that the same requests make the same outlook on every database.
        .order_by(Request.id)
    )
    counts: Counter[Shape] = Counter()
    for spec, servers in rows:
        try:
            counts[Shape.of(RequestSpec.from_dict(spec).query())] += servers
        except errors.InvalidError:
            continue  # of an older release, which knew what this one does not
    return counts
