# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""GPUs that offer two vGPU types, from the agent's report through scheduler and claim to the devices that are made."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import patience
import pytest
from oslo_config import cfg
from sqlalchemy import select

from accelsched import rpc, wire
from accelsched.agent.devices.base import HostContext
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.agent.host import Host
from accelsched.agent.virt.base import Progress
from accelsched.agent.virt.simulated import SimulatedDriver
from accelsched.compute import assignments, hosts, servers
from accelsched.db import migrations
from accelsched.db.compute import Request, Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin
from accelsched.placement.fleet import Fleet
from accelsched.scheduler import request as requests
from accelsched.scheduler.service import Scheduler

SMALL, LARGE = "CUSTOM_VGPU_LAB_1", "CUSTOM_VGPU_LAB_2"


class Site:
    """A database with a scheduler, and one host with its drivers."""

    def __init__(self, db: Database, host: Host) -> None:
        self.db = db
        self.host = host
        self.report()

    def report(self) -> None:
        self.db.transact(lambda session: hosts.report(session, self.host.report("agent")))

    def place(self, resource_class: str, count: int) -> list[str]:
        """Ask for servers with one vGPU each and return those that found a place, built."""
        specs = {f"resources:{resource_class}": "1"}
        flavor: wire.FlavorSpec = {"name": "f", "vcpus": 1, "ram_mb": 64, "disk_gb": 0, "extra_specs": specs}
        spec = requests.build(flavor, None, project_id="p").to_dict()
        origin = Origin("req-1", "p", "u")
        new = servers.NewServers("p", "u", "vm", {}, dict(flavor), None, None, False, spec, 1, count, origin)
        created = self.db.transact(lambda session: servers.create(session, new)).uuids
        patience.wait(self._decided)
        with self.db.reading() as session:
            mine = [one for one in assignments.of_hosts(session, [self.host.name]) if one["server_uuid"] in created]
        for assignment in mine:
            self.host.build(assignment, Progress(lambda _detail: None, threading.Event()))
        return [assignment["server_uuid"] for assignment in mine]

    def delete(self, server_uuid: str) -> None:
        self.host.remove(server_uuid)

        def write(session: Any) -> None:
            session.scalars(select(Server).where(Server.uuid == server_uuid)).one().desired = "deleted"
            session.flush()
            gone: wire.Observation = {
                **{"host": self.host.name, "server_uuid": server_uuid},
                **{"state": "gone", "detail": "", "fault": None},
            }
            assignments.observe(session, gone, 1)

        self.db.transact(write)

    def _decided(self) -> bool:
        with self.db.reading() as session:
            return not session.scalars(select(Request.id).where(Request.state != "done")).first()


@pytest.fixture
def site(sysfs: Any, options_for: Callable[..., cfg.ConfigOpts], tmp_path: Path) -> Iterator[Site]:
    for number in (1, 2):
        gpu = sysfs.add_function(f"0000:4{number}:00.0", group=number)
        sysfs.add_mdev_parent(gpu, {"lab-1": 4, "lab-2": 2}, time_sliced=True)
    conf = options_for(tmp_path / "state")
    conf.set_override("sysfs_root", str(sysfs.root), group="devices")
    conf.set_override("enabled_mdev_types", ["lab-1", "lab-2"], group="devices")
    conf.set_override("poll_interval", 0.05, group="scheduler")
    context = HostContext(conf, "node1", str(uuid.uuid4()), tmp_path / "state")
    host = Host(context, SimulatedDriver(context), {"mdev": MdevDriver(context)})
    db = Database(f"sqlite:///{tmp_path}/accelsched.sqlite")
    migrations.upgrade(db)
    scheduler = Scheduler(conf, db, Fleet(db), rpc.AgentClient(rpc.transport(conf)))
    scheduler.start()
    yield Site(db, host)
    scheduler.stop()
    db.dispose()


def made(sysfs: Any) -> dict[str, set[str]]:
    """Return the types of the mediated devices on each GPU."""
    found: dict[str, set[str]] = {}
    for device in sysfs.mdevs.iterdir():
        gpu = device.resolve().parent.name
        found.setdefault(gpu, set()).add((device / "mdev_type").resolve().name)
    return found


def test_two_types_are_placed_so_that_no_gpu_is_asked_for_both(site: Site, sysfs: Any) -> None:
    small = site.place(SMALL, 3)
    large = site.place(LARGE, 3)
    assert (len(small), len(large)) == (3, 2)
    assert sorted(map(sorted, made(sysfs).values())) == [["lab-1"], ["lab-2"]]
    site.report()  # what is carried changes nothing of what is told
    assert len(site.place(SMALL, 3)) == 1
    for server in large:
        site.delete(server)
    assert len(site.place(SMALL, 9)) == 4
    assert sorted(map(sorted, made(sysfs).values())) == [["lab-1"], ["lab-1"]]
