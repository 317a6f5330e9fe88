# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A control plane whose hosts' agents say what a test has them say."""

from __future__ import annotations

from typing import Any

import fleets
import patience
from sqlalchemy import func, select, update

from accelsched import wire
from accelsched.compute import hypervisors, instance_actions, servers
from accelsched.compute.controller import Controller
from accelsched.db.compute import Host, Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.db.placement import Allocation, Consumer, ResourceProvider
from accelsched.scheduler import request as requests
from accelsched.scheduler.service import Scheduler

ORIGIN = Origin("req-1", "p", "u")
FAULT: wire.Fault = {"message": "the hypervisor could not start the server", "details": "QEMU said no"}
AS_ADMIN: dict[str, Any] = {"project_id": None, "admin": True}


class Site:
    """A control plane with hosts whose agents say what the test has them say."""

    def __init__(self, db: Database, scheduler: Scheduler) -> None:
        self.db = db
        self.scheduler = scheduler
        self.told: list[tuple[str, str]] = []  # agents, and of which host
        self.controller = Controller(
            db, 3, lambda: scheduler.place({}), lambda agent, host: self.told.append((agent, host))
        )
        for name in ("h0", "h1", "h2", "h3"):
            self.controller.report_host({}, fleets.host_report(name, gpus=1, vgpus=2))
        scheduler.start()

    def create(
        self, host: str | None = None, count: int = 1, extra_specs: dict[str, str] | None = None, **beside: Any
    ) -> list[str]:
        flavor: wire.FlavorSpec = {
            **{"name": "f", "vcpus": 1, "ram_mb": 512, "disk_gb": 1},
            "extra_specs": extra_specs or {"resources:VGPU": "1"},
        }
        spec = requests.build(flavor, None, project_id="p", host=host)
        new = servers.NewServers(
            *("p", "u", "vm", {}, dict(flavor), None, None, False, spec.to_dict(), count, count), ORIGIN, **beside
        )
        made = self.db.transact(lambda session: servers.create(session, new)).uuids
        self.settle()
        return made

    def settle(self) -> None:
        """Wait until the scheduler has nothing to do."""
        self.scheduler.place({})

        def done() -> bool:
            with self.db.reading() as session:
                return not session.scalar(select(func.count()).select_from(Request).where(Request.state != "done"))

        patience.wait(done, interval_s=0.02)

    def server(self, uuid: str) -> Server:
        with self.db.reading() as session:
            return session.scalars(select(Server).where(Server.uuid == uuid)).one()

    def see(self, uuid: str, state: str, host: str | None = None, **more: Any) -> None:
        """Have the agent of a host, the server's own unless said, report a server."""
        seen = {"host": host or self.server(uuid).host, "server_uuid": uuid, "state": state, "detail": ""}
        fault = FAULT if state == "error" else None
        self.controller.report_observations({}, [{**seen, "fault": fault, **more}])  # type: ignore[typeddict-item]

    def assigned(self, host: str) -> dict[str, wire.Assignment]:
        return {wanted["server_uuid"]: wanted for wanted in self.controller.fetch_assignments({}, [host])}

    def holds_from(self, uuid: str) -> set[str]:
        """Return the hosts that a server holds something of, by the books."""
        with self.db.reading() as session:
            names = session.scalars(
                select(ResourceProvider.name)
                .join(Allocation, Allocation.provider_id == ResourceProvider.id)
                .join(Consumer, Consumer.id == Allocation.consumer_id)
                .where(Consumer.uuid == uuid)
            )
            return {name.split("_")[0] for name in names}

    def actions(self, uuid: str) -> list[tuple[str, bool, str | None]]:
        """Return (action, whether it is finished, why it failed), the newest first."""
        with self.db.reading() as session:
            listed = instance_actions.list_page(session, self.server(uuid).id)
            return [
                (row.action, row.finished_at is not None, row.fault["message"] if row.fault else None) for row in listed
            ]

    def lose(self, host: str) -> None:
        def force_down(session: Any) -> None:
            session.execute(update(Host).where(Host.name == host).values(forced_down=True))
            hypervisors.hosts_head.advance(session)

        self.db.transact(force_down)
