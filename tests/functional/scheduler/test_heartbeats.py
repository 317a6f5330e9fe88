# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Heartbeats, gathered and written together, on the three databases."""

from __future__ import annotations

import datetime

import fleets
import patience
from sqlalchemy import select, update

from accelsched.compute import hosts, hypervisors
from accelsched.compute.heartbeats import Heartbeats
from accelsched.db.base import utcnow
from accelsched.db.compute import Heartbeat, Host
from accelsched.db.engine import Database

LONG_AGO = utcnow() - datetime.timedelta(hours=1)


def silence(db: Database) -> None:
    db.transact(lambda session: session.execute(update(Heartbeat).values(seen_at=LONG_AGO)))


def heard(db: Database) -> set[str]:
    with db.reading() as session:
        return set(session.scalars(select(Host.name).where(Host.last_seen_at > LONG_AGO)))


def test_the_first_beat_of_a_host_is_written_at_once_and_further_ones_together(db: Database) -> None:
    for name in ("h0", "h1"):
        told = fleets.host_report(name, gpus=0)
        db.transact(lambda session, told=told: hosts.report(session, told))
    beats = Heartbeats(db, gather_s=0.2)
    silence(db)
    assert beats.note(["h0", "h1", "h2"]) == ["h2"]
    assert heard(db) == {"h0", "h1"}

    silence(db)
    assert beats.note(["h0"]) == []
    assert heard(db) == set()
    patience.wait(lambda: heard(db) == {"h0"}, interval_s=0.02)

    db.transact(lambda session: hypervisors.remove_service(session, hypervisors.by_host("h0")))
    assert beats.note(["h1", "h0"]) == []  # it is not known yet that it was forgotten
    patience.wait(lambda: heard(db) == {"h1"}, interval_s=0.02)
    patience.wait(lambda: beats.note(["h0"]) == ["h0"], interval_s=0.02)
