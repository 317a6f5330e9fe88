# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that exist in memory only, for demonstrations and fleet tests; their console says so."""

from __future__ import annotations

import os
import platform
import random
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import os_traits

from accelsched import errors, names, wire
from accelsched.agent import numa
from accelsched.agent.devices import base as devices
from accelsched.agent.devices import simulated as simulated_devices
from accelsched.agent.virt import base
from accelsched.conf import compute


@dataclass(frozen=True)
class _Server:
    name: str
    parts: tuple[str, ...]  # devices and NUMA nodes, as the console tells them
    power: base.Power = base.Power.RUNNING
    order: base.CarriedOut = base.NO_ORDER
    incarnation: int = 1
    rescued: bool = False
    nmis: int = 0
    # What was attached, by accelerator; None: to be given back.
    plugs: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)


class SimulatedDriver(base.VirtDriver):
    """Pretends. ``[agent] simulated_*`` say how large, how slow and how unreliable its hosts are."""

    simulated: ClassVar[bool] = True

    def __init__(self, context: devices.HostContext) -> None:
        super().__init__(context)
        every = frozenset(range(context.conf.agent.simulated_vcpus))
        compute.check_host(context.conf, every)
        self._shared = compute.shared(context.conf, every)
        self._servers: dict[str, _Server] = {}
        self._awaited: dict[str, int] = {}  # the incarnation of each server that is to come, by uuid
        self._lock = threading.Lock()

    def hypervisor(self) -> wire.HypervisorReport:
        """Say that it is simulated."""
        return {
            "type": "simulated",
            "version": 1_000_000,
            "hostname": self.context.host,
            "cpu_arch": platform.machine(),
            "virt_type": "simulated",
        }

    def capacity(self) -> base.Capacity:
        """Return what the options say."""
        options = self.context.conf.agent
        return base.Capacity(
            len(self._shared),
            options.simulated_memory_mb,
            options.simulated_disk_gb,
            len(compute.dedicated(self.context.conf)),
        )

    def numa(self) -> wire.NumaTopology | None:
        """Return as many nodes as the options say."""
        options = self.context.conf.agent
        if not options.simulated_numa_nodes:
            return None
        nodes = numa.simulated(
            options.simulated_numa_nodes,
            options.simulated_vcpus,
            options.simulated_threads_per_core,
            options.simulated_memory_mb,
            options.simulated_huge_pages,
        )
        return numa.topology(nodes, shared=self._shared, dedicated=compute.dedicated(self.context.conf))

    def traits(self) -> frozenset[str]:
        """Return the trait that says that nothing here is real, and those of hosts that servers can leave."""
        return frozenset({simulated_devices.TRAIT, os_traits.COMPUTE_ACCELERATORS, names.MOVES, names.MOVES_LIVE})

    def servers(self) -> list[base.PresentServer]:
        """Return the servers made, and awaited, since this process started."""
        with self._lock:
            awaited = [
                base.PresentServer(uuid, base.Power.ABSENT, base.Launch.NEVER, incarnation=incarnation, awaited=True)
                for uuid, incarnation in sorted(self._awaited.items())
            ]
            return awaited + [
                base.PresentServer(
                    *(uuid, one.power, base.Launch.THIS_BOOT, one.order, one.incarnation, one.rescued),
                    plugs=_attached(one),
                )
                for uuid, one in sorted(self._servers.items())
            ]

    def build(
        self, assignment: wire.Assignment, attachments: Sequence[devices.Attachment], progress: base.Progress
    ) -> None:
        """Remember the server, after ``simulated_build_seconds``; fail at ``simulated_failure_rate``."""
        options = self.context.conf.agent
        rescued = base.rescue_image(assignment) is not None
        fixed, plugs = _names(attachments, assignment)
        if self._change(assignment["server_uuid"], power=base.Power.RUNNING, rescued=rescued, plugs=plugs):
            return
        came = assignment["server_uuid"] in self._awaited
        if options.simulated_build_seconds and not came:
            progress.step("simulating a build")
            progress.cancelled.wait(options.simulated_build_seconds)
            progress.check()
        if not came and random.random() < options.simulated_failure_rate:  # noqa: S311 - not a secret
            raise base.BuildError("simulated failure ([agent] simulated_failure_rate)")
        with self._lock:
            self._awaited.pop(assignment["server_uuid"], None)
            self._servers[assignment["server_uuid"]] = _Server(
                assignment["name"],
                (
                    *fixed,
                    *(_told(node) for node in assignment.get("numa", [])),
                ),
                incarnation=assignment.get("incarnation", 1),
                plugs=plugs,
            )

    def prepare_rescue(self, assignment: wire.Assignment, progress: base.Progress) -> None:
        """Do nothing: simulated servers have no disks."""

    def stop(self, server_uuid: str, grace_s: float, progress: base.Progress) -> None:
        """Say that the server is stopped; simulated guests shut down at once."""
        self._change(server_uuid, power=base.Power.STOPPED)

    def pause(self, server_uuid: str) -> None:
        """Say that the server is paused."""
        self._change(server_uuid, power=base.Power.PAUSED)

    def suspend(self, server_uuid: str, timeout_s: float, progress: base.Progress) -> None:
        """Say that the server is suspended."""
        self._change(server_uuid, power=base.Power.SUSPENDED)

    def snapshot(self, server_uuid: str, progress: base.Progress) -> base.Snapshot:
        """Return a file that says that there is no disk."""
        handle, path = tempfile.mkstemp(prefix=f"accelsched-{server_uuid}-")
        with os.fdopen(handle, "wb") as file:
            file.write(f"no disk: {server_uuid} is a simulated server\n".encode().ljust(512, b"\0"))
        return base.Snapshot(Path(path), "raw")

    def plugs(self, server_uuid: str) -> Mapping[str, bool]:
        """Return what was attached to a server."""
        with self._lock:
            server = self._servers.get(server_uuid)
        return {} if server is None else _attached(server)

    def attach(self, server_uuid: str, plug: str, attachments: Sequence[devices.Attachment]) -> None:
        """Remember what is attached; fail at ``simulated_failure_rate``."""
        if random.random() < self.context.conf.agent.simulated_failure_rate:  # noqa: S311 - not a secret
            raise base.PlugError("simulated failure ([agent] simulated_failure_rate)")
        with self._lock:
            server = self._servers[server_uuid]
            told = tuple(str(getattr(attachment, "name", attachment)) for attachment in attachments)
            self._servers[server_uuid] = replace(server, plugs={**server.plugs, plug: told})

    def detach(self, server_uuid: str, plug: str, timeout_s: float, progress: base.Progress) -> None:
        """Do nothing: simulated guests let go at once."""

    def forget_plug(self, server_uuid: str, plug: str) -> None:
        """Forget what was attached."""
        with self._lock:
            server = self._servers[server_uuid]
            plugs = {name: told for name, told in server.plugs.items() if name != plug}
            self._servers[server_uuid] = replace(server, plugs=plugs)

    def put_aside(self, server_uuid: str) -> None:
        """Say that there is no domain any more."""
        self._change(server_uuid, power=base.Power.ABSENT)

    def files_aside(self, server_uuid: str) -> Mapping[str, Path]:
        """Return nothing: simulated servers have no files."""
        return {}

    def take_over(self, assignment: wire.Assignment, source: base.RemoteFiles, progress: base.Progress) -> None:
        """Remember the server, stopped, if it is not to run; simulated servers have no files."""
        if not base.to_run(assignment):
            incarnation = assignment.get("incarnation", 1)
            server = _Server(assignment["name"], (), base.Power.ABSENT, incarnation=incarnation)
            with self._lock:
                self._servers.setdefault(assignment["server_uuid"], server)

    def departure(self, server_uuid: str) -> wire.Departure:
        """Return nothing: simulated servers have no files."""
        return {"files": {}}

    def departing_files(self, server_uuid: str) -> Mapping[str, Path]:
        """Return nothing: simulated servers have no files."""
        return {}

    def await_server(
        self,
        assignment: wire.Assignment,
        attachments: Sequence[devices.Attachment],
        source: base.RunningServer,
        progress: base.Progress,
    ) -> None:
        """Remember that the server may come."""
        with self._lock:
            self._awaited[assignment["server_uuid"]] = assignment.get("incarnation", 1)

    def landing(self, server_uuid: str, domain: str) -> wire.Landing:
        """Return nothing but the host's name."""
        with self._lock:
            if server_uuid not in self._awaited:
                raise errors.NotFoundError(f"server {server_uuid} is not awaited on host {self.context.host}")
        return {"xml": "", "address": self.context.host}

    def landed(self, server_uuid: str) -> bool:
        """Return False: a simulated server is where its source says that it is."""
        return False

    def send(self, assignment: wire.Assignment, destination: base.Destination, progress: base.Progress) -> None:
        """Say that there is no domain any more, after ``simulated_build_seconds``; fail at
        ``simulated_failure_rate``."""
        server_uuid = assignment["server_uuid"]
        with self._lock:
            server = self._servers.get(server_uuid)
        if server is None or server.power is base.Power.ABSENT:
            return
        if destination.aborted:
            raise base.MigrationError("the migration was aborted")
        try:
            destination.landing("")
        except (errors.NotFoundError, errors.ConflictError) as exc:
            raise base.UnfitTargetError(str(exc)) from exc
        options = self.context.conf.agent
        memory = assignment["flavor"]["ram_mb"] << 20
        told: wire.LiveProgress = {
            "memory_total": memory,
            "memory_processed": 0,
            "memory_remaining": memory,
            "disk_total": 0,
            "disk_processed": 0,
            "disk_remaining": 0,
        }
        progress.migration(told)
        if options.simulated_build_seconds:
            progress.cancelled.wait(options.simulated_build_seconds)
        progress.check()
        if random.random() < options.simulated_failure_rate:  # noqa: S311 - not a secret
            raise base.MigrationError("simulated failure ([agent] simulated_failure_rate)")
        self._change(server_uuid, power=base.Power.ABSENT)

    def hasten(self, server_uuid: str) -> None:
        """Do nothing: simulated servers write nothing that would have to be copied again."""

    def forget_disks(self, server_uuid: str, wanted: str | None) -> None:
        """Do nothing: simulated servers have no disks."""

    def carried_out(self, server_uuid: str, order: base.CarriedOut) -> None:
        """Remember the order with the server."""
        self._change(server_uuid, order=order)

    def _change(self, server_uuid: str, **changes: Any) -> bool:
        """Change what is remembered of a server; return whether it is there."""
        with self._lock:
            server = self._servers.get(server_uuid)
            if server is not None:
                self._servers[server_uuid] = replace(server, **changes)
            return server is not None

    def destroy(self, server_uuid: str) -> None:
        """Forget the server."""
        with self._lock:
            self._servers.pop(server_uuid, None)
            self._awaited.pop(server_uuid, None)

    def diagnostics(self, server_uuid: str) -> wire.Diagnostics:
        """Say that nothing is done here."""
        with self._lock:
            server = self._servers.get(server_uuid)
        if server is None or server.power not in (base.Power.RUNNING, base.Power.PAUSED):
            raise errors.NotFoundError(f"server {server_uuid} does not run on host {self.context.host}")
        return {
            "state": server.power.value,
            "driver": "simulated",
            "hypervisor": "simulated",
            "uptime": None,
            "cpus": [],
            "disks": [],
            "memory_mb": 0,
        }

    def inject_nmi(self, server_uuid: str) -> None:
        """Count it; the console tells of it."""
        with self._lock:
            server = self._servers.get(server_uuid)
            if server is None or server.power not in (base.Power.RUNNING, base.Power.PAUSED):
                raise errors.NotFoundError(f"server {server_uuid} does not run on host {self.context.host}")
            self._servers[server_uuid] = replace(server, nmis=server.nmis + 1)

    def console_output(self, server_uuid: str) -> str:
        """Return a banner that says that the server is simulated, its devices, and each NMI."""
        with self._lock:
            server = self._servers.get(server_uuid)
        if server is None:
            raise errors.NotFoundError(f"server {server_uuid} is not on host {self.context.host}")
        return "".join(
            f"{line}\n"
            for line in (
                f"simulated server {server.name} on simulated host {self.context.host}",
                *server.parts,
                *(part for parts in server.plugs.values() for part in parts or ()),
                *["an NMI was injected"] * server.nmis,
            )
        )


def _attached(server: _Server) -> dict[str, bool]:
    return {plug: told is not None for plug, told in server.plugs.items()}


def _names(
    attachments: Sequence[devices.Attachment], assignment: wire.Assignment
) -> tuple[list[str], dict[str, tuple[str, ...] | None]]:
    """Return what devices are called: those that a server has from its beginning, and those attached later."""
    fixed: list[str] = []
    plugs: dict[str, tuple[str, ...] | None] = dict.fromkeys(base.leaving_plugs(assignment))
    for attachment in attachments:
        name = str(getattr(attachment, "name", attachment))
        if attachment.plug is None:
            fixed.append(name)
        else:
            plugs[attachment.plug] = (*(plugs.get(attachment.plug) or ()), name)
    return fixed, plugs


def _told(node: wire.NumaPlacedNode) -> str:
    pins = ", ".join(f"{cpu} on {pin}" for cpu, pin in node["pins"].items())
    return f"simulated memory of {node['memory_mb']} MiB on node {node['node']}" + (f", CPUs {pins}" if pins else "")
