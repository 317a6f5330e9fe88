# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The programming of servers' FPGA regions, as their agents told it. It stays as long as the server's row does."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from accelsched import wire
from accelsched.compute import servers
from accelsched.db.base import utcnow
from accelsched.db.compute import ProgrammingJob, Server

_ENDED = ("programmed", "skipped", "failed")


def observed(session: Session, server: Server, seen: wire.Observation) -> None:
    """Take over how far the programming of a server's regions is.

    An agent says the same again whenever it says anything of the server.
    """
    told = {job["uuid"]: job for job in seen.get("programming", ())}
    if not told:
        return
    known = {job.uuid: job for job in session.scalars(select(ProgrammingJob).where(ProgrammingJob.uuid.in_(told)))}
    for uuid, job in told.items():
        row = known.get(uuid)
        if row is None:
            row = ProgrammingJob(uuid=uuid, server_id=server.id, host=seen["host"], state="", told={})
            session.add(row)
        if row.server_id == server.id and row.told != job:
            row.state, row.told, row.updated_at = job["state"], dict(job), utcnow()


def abandon(session: Session, server: Server) -> None:
    """Note that nobody goes on with what is under way: nothing is left of the server on its host."""
    query = select(ProgrammingJob).where(ProgrammingJob.server_id == server.id, ProgrammingJob.state.not_in(_ENDED))
    for row in session.scalars(query):
        fault: wire.Fault = {"message": "The server was removed from its host meanwhile.", "details": ""}
        row.state, row.updated_at = "failed", utcnow()
        row.told = {**row.told, "state": "failed", "fault": fault}


def of_server(session: Session, uuid: str, *, project_id: str | None) -> Sequence[ProgrammingJob]:
    """Return the jobs of a server, also of one that is deleted, the newest first.

    :param project_id: whose it must be; None for anybody's
    :raises accelsched.errors.NotFoundError: when there is no such server
    """
    server = servers.get(session, uuid, project_id=project_id, deleted=True).server
    query = select(ProgrammingJob).where(ProgrammingJob.server_id == server.id).order_by(ProgrammingJob.id.desc())
    return session.scalars(query).all()
