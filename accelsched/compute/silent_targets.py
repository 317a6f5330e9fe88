# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that wait for an agent to make ready for them, and it does not answer any more."""

from __future__ import annotations

from collections.abc import Callable

from oslo_log import log

from accelsched.compute import live_migration
from accelsched.compute.periodic import Periodic
from accelsched.db.engine import Database

LOG = log.getLogger(__name__)


class SilentTargets(Periodic):
    """A thread that has live migrations not wait for such hosts."""

    def __init__(
        self,
        db: Database,
        service_down_time_s: int,
        max_attempts: int,
        interval_s: float,
        place: Callable[[], None],
    ) -> None:
        """
        :param max_attempts: hosts that are tried for a server
        :param place: called when there may be servers to place
        """
        super().__init__("silent-targets", interval_s)
        self._db = db
        self._service_down_time_s = service_down_time_s
        self._max_attempts = max_attempts
        self._place = place

    def failed(self, exc: Exception) -> None:
        """Say so with all that is known."""
        LOG.error("Live migrations to hosts that do not answer wait for now; looking again", exc_info=exc)

    def look(self) -> None:
        """Look once."""
        with self._db.reading() as session:
            if not live_migration.silent_targets(session, self._service_down_time_s):
                return
        left = self._db.transact(
            lambda session: live_migration.leave_silent(session, self._service_down_time_s, self._max_attempts)
        )
        if left:
            LOG.warning("Live migrations wait no longer for hosts that do not answer: %s", ", ".join(left))
            self._place()
