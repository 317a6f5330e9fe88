# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""One host: its virt driver, its device drivers, and what each of them has there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import os_traits
from oslo_log import log
from oslo_utils import netutils

from accelsched import errors, rpc, wire
from accelsched.agent import inventory
from accelsched.agent.devices.base import Attachment, Device, DeviceDriver, DeviceError, HostContext
from accelsched.agent.failures import Failures
from accelsched.agent.handover import Destination, Source
from accelsched.agent.images import ImageClient
from accelsched.agent.numa import has_threads
from accelsched.agent.plan import OwnedDevice, Present
from accelsched.agent.virt.base import CarriedOut, Progress, SnapshotError, VirtDriver, to_run
from accelsched.errors import AccelschedError, UnavailableError
from accelsched.failpoints import Point, reach

LOG = log.getLogger(__name__)

_GIVE_BACK_TRIES, _GIVE_BACK_AGAIN_S = 10, 0.5
_GRACE_MAX_S = 3600.0  # an image's owner may not occupy a thread of the agent for ever


class Host:
    """Everything on this host that is done with hardware or a hypervisor."""

    def __init__(
        self,
        context: HostContext,
        virt: VirtDriver,
        drivers: Mapping[str, DeviceDriver],
        agents: rpc.AgentClient | None = None,
    ) -> None:
        """
        :param drivers: device drivers by name; where two offer the same device, the first does
        :param agents: other hosts' agents, that servers come from
        """
        self.name = context.host
        self.node_uuid = context.node_uuid
        self.context = context
        self.virt = virt
        # Simulated servers do not outlive the process, so neither do their failures.
        self.failures = Failures(None if virt.simulated else context.state_path / "failures")
        self.departing: frozenset[str] = frozenset()  # servers that are to go as they run, when last heard
        self._images = ImageClient(context.conf)
        self._drivers = drivers
        self._agents = agents
        self._owners: dict[str, str] = {}  # driver by provider name, from the last discovery
        self._found: dict[str, list[Device]] = {}  # by driver, from the last discovery that worked
        self._clashes: set[str] = set()  # providers of two drivers that were logged

    @property
    def simulated(self) -> bool:
        """Whether the host or all of its devices are simulated."""
        devices_are = bool(self._drivers) and all(driver.simulated for driver in self._drivers.values())
        return self.virt.simulated or devices_are

    @property
    def constant(self) -> bool:
        """Whether nothing about the host ever changes by itself."""
        return self.virt.simulated and all(driver.simulated for driver in self._drivers.values())

    def report(self, agent: str) -> wire.HostReport:
        """Look at everything and describe it.

        :param agent: RPC server name of this process
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer
        """
        hypervisor = self.virt.hypervisor()
        if address := self._address():
            hypervisor["host_ip"] = address
        devices = self._discover()
        numa = self.virt.numa()
        threads = {os_traits.HW_CPU_HYPERTHREADING} if has_threads(numa) else set()
        report: wire.HostReport = {
            "host": self.name,
            "node_uuid": self.node_uuid,
            "agent": agent,
            "simulated": self.simulated,
            "rpc_version": wire.AGENT_VERSION,
            "hypervisor": hypervisor,
            "providers": inventory.host_providers(
                self.context.conf,
                self.name,
                self.node_uuid,
                capacity=self.virt.capacity(),
                traits=self.virt.traits() | threads,
                devices=devices,
            ),
        }
        if numa is not None:
            report["numa"] = numa
        return report

    def _address(self) -> str | None:
        """Return the host's address, as far as anybody but itself would find it there."""
        told: str | None = self.context.conf.agent.my_ip
        if told or self.virt.simulated:
            return told
        return self._found_address

    @functools.cached_property  # each look that finds none is logged
    def _found_address(self) -> str | None:
        found = netutils.get_my_ipv4()
        return None if found.startswith("127.") else found

    def departure(self, server_uuid: str) -> wire.Departure:
        """Return what another host must know of a server, to make ready for it while it runs here.

        :raises accelsched.errors.NotFoundError: when nothing of it is here
        :raises accelsched.errors.UnavailableError: when it is not known to be about to go
        """
        self._check_departing(server_uuid)
        return self.virt.departure(server_uuid)

    def departing_file(self, server_uuid: str, name: str) -> Path:
        """Return one of the files that another host needs then.

        :raises accelsched.errors.NotFoundError: when there is no such file
        :raises accelsched.errors.UnavailableError: when the server is not known to be about to go
        """
        self._check_departing(server_uuid)
        path = self.virt.departing_files(server_uuid).get(name)
        if path is None:
            raise errors.NotFoundError(f"server {server_uuid} has no {name!r} on host {self.name}")
        return path

    def _check_departing(self, server_uuid: str) -> None:
        """What is on a server's config drive is for nobody but its host and the one that it goes to."""
        if server_uuid not in self.departing:
            raise UnavailableError(f"host {self.name} has not heard that server {server_uuid} is to go")

    def present(self, assignments: Iterable[wire.Assignment]) -> Present:
        """Return what is here and carries our mark.

        :param assignments: they tell whose devices those are that are on no record
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer
        """
        assignments = list(assignments)
        wanted = {assignment["server_uuid"] for assignment in assignments}
        devices = []
        for name, driver in self._drivers.items():
            driver.repair()
            known = {
                mark: assignment["server_uuid"] for assignment in assignments for mark in _marks(driver, assignment)
            }
            devices += [
                OwnedDevice(
                    name,
                    device.mark,
                    device.server_uuid or known.get(device.mark),
                    spare=device.server_uuid in wanted and device.mark not in known,
                )
                for device in driver.present()
            ]
        return Present(self.virt.servers(), devices)

    def build(self, assignment: wire.Assignment, progress: Progress) -> None:
        """Make, or finish making, a server with its devices; one that comes from elsewhere stopped is not started.

        :raises accelsched.errors.AccelschedError: when it cannot be made
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        if "origin" in assignment and self._agents is not None:
            server_uuid, origin = assignment["server_uuid"], assignment["origin"]
            self.virt.take_over(assignment, Source(self._agents, origin, server_uuid, progress), progress)
            reach(Point.AGENT_FILES_FETCHED)
            if not to_run(assignment):
                self.virt.carried_out(server_uuid, CarriedOut(assignment["order"]["number"]))
                return
        self.virt.build(assignment, self._prepare_all(assignment, progress), progress)
        reach(Point.AGENT_SERVER_BUILT)
        if "order" in assignment and to_run(assignment):
            self.virt.carried_out(assignment["server_uuid"], CarriedOut(assignment["order"]["number"]))

    def await_server(self, assignment: wire.Assignment, progress: Progress) -> None:
        """Make ready for a server that is to come while it runs: its devices first, then what its domain needs.

        :raises accelsched.errors.AccelschedError: when that cannot be done
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        source = Source(self._others(), assignment["incoming"], assignment["server_uuid"], progress, running=True)
        self.virt.await_server(assignment, self._prepare_all(assignment, progress), source, progress)
        reach(Point.AGENT_LANDING_PREPARED)

    def _others(self) -> rpc.AgentClient:
        if self._agents is None:
            raise AccelschedError(f"host {self.name} knows no other host's agent")
        return self._agents

    def _prepare_all(self, assignment: wire.Assignment, progress: Progress) -> list[Attachment]:
        progress.step("preparing devices")
        attachments: list[Attachment] = []
        for allocation in assignment["devices"]:
            if allocation["provider_uuid"] != self.node_uuid and not _leaves(allocation):
                attachments += self._prepare(assignment, allocation, progress)
        reach(Point.AGENT_DEVICES_PREPARED)
        return attachments

    def _prepare(
        self, assignment: wire.Assignment, allocation: wire.DeviceAllocation, progress: Progress
    ) -> list[Attachment]:
        driver = self._driver_of(allocation["provider_name"])
        driver.program(assignment, allocation, progress)
        attachments = driver.prepare(assignment["server_uuid"], allocation)
        if "plug" not in allocation:
            return attachments
        return [dataclasses.replace(attachment, plug=allocation["plug"]["id"]) for attachment in attachments]

    def plug(self, assignment: wire.Assignment, progress: Progress) -> tuple[dict[str, AccelschedError], bool]:
        """Attach to a server what it is to have besides, and detach what it is to have no longer.

        :returns: why it could not be done, by accelerator; and whether all is done, or to be tried again
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        server_uuid = assignment["server_uuid"]
        known: dict[str, list[wire.DeviceAllocation]] = {}
        for allocation in assignment["devices"]:
            if "plug" in allocation:
                known.setdefault(allocation["plug"]["id"], []).append(allocation)
        plugs = self.virt.plugs(server_uuid)
        failed: dict[str, AccelschedError] = {}
        done = True
        for plug in sorted(known.keys() | plugs.keys()):
            allocations = known.get(plug, [])
            try:
                if not allocations or any(map(_leaves, allocations)):
                    done &= self._unplug(assignment, plug, progress)
                elif not plugs.get(plug):
                    self._plug_in(assignment, plug, allocations, progress)
            except UnavailableError:
                raise
            except AccelschedError as exc:
                failed[plug] = exc
        return failed, done and not failed

    def _plug_in(
        self, assignment: wire.Assignment, plug: str, allocations: list[wire.DeviceAllocation], progress: Progress
    ) -> None:
        """Attach an accelerator; where that fails, leave nothing of it."""
        try:
            attachments = [
                attachment
                for allocation in allocations
                for attachment in self._prepare(assignment, allocation, progress)
            ]
            reach(Point.AGENT_PLUG_PREPARED)
            self.virt.attach(assignment["server_uuid"], plug, attachments)
            reach(Point.AGENT_PLUG_ATTACHED)
        except UnavailableError:
            raise
        except AccelschedError:
            self._unplug(assignment, plug, progress)
            raise

    def _unplug(self, assignment: wire.Assignment, plug: str, progress: Progress) -> bool:
        """Detach an accelerator and give its devices back; return whether that is done."""
        server_uuid = assignment["server_uuid"]
        self.virt.detach(server_uuid, plug, self.context.conf.agent.detach_timeout, progress)
        reach(Point.AGENT_PLUG_DETACHED)
        kept = [device for device in assignment["devices"] if "plug" not in device or device["plug"]["id"] != plug]
        for driver in self._drivers.values():
            if not _give_back(driver, {**assignment, "devices": kept}, progress):
                return False
        reach(Point.AGENT_PLUG_RELEASED)
        self.virt.forget_plug(server_uuid, plug)
        reach(Point.AGENT_PLUG_FORGOTTEN)
        return True

    def obey(self, assignment: wire.Assignment, progress: Progress) -> None:
        """Carry out a server's order. One that was interrupted may be begun anew: a guest may be rebooted twice.

        :raises accelsched.errors.AccelschedError: when it cannot be done
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        server_uuid, order = assignment["server_uuid"], assignment["order"]
        if order["power"] == "rescued":
            self.virt.prepare_rescue(assignment, progress)
        if order["reboot"] is not None or order["power"] in ("stopped", "rescued", "aside"):
            self.virt.stop(server_uuid, self._grace_s(assignment), progress)
        if "snapshot" in order:
            self._snapshot(server_uuid, order["snapshot"], progress)
            return
        match order["power"]:
            case "running" | "rescued":
                self.build(assignment, progress)
            case "paused":
                self.virt.pause(server_uuid)
            case "suspended":
                self.virt.suspend(server_uuid, self.context.conf.agent.detach_timeout, progress)
            case "aside":
                self.virt.put_aside(server_uuid)
            case "away":
                self.virt.send(assignment, Destination(self._others(), order["live"], server_uuid), progress)

    def _snapshot(self, server_uuid: str, image_id: str, progress: Progress) -> None:
        """Upload what is on a server's disk."""
        progress.step("image_pending_upload")
        snapshot = self.virt.snapshot(server_uuid, progress)
        try:
            progress.step("image_uploading")
            self._images.upload(image_id, snapshot.disk_format, snapshot.path, progress.check)
        except errors.UnavailableError as exc:  # of Glance, which nobody waits for
            raise SnapshotError(f"the image could not be uploaded: {exc}") from exc
        finally:
            snapshot.path.unlink(missing_ok=True)

    def _grace_s(self, assignment: wire.Assignment) -> float:
        """Return how long a guest is given to shut down: what its image says, else what the operator says."""
        if assignment["order"]["reboot"] == "hard":
            return 0.0
        properties = assignment["image"]["properties"] if assignment["image"] else {}
        try:
            return min(max(float(properties["os_shutdown_timeout"]), 0.0), _GRACE_MAX_S)
        except (KeyError, ValueError):
            return float(self.context.conf.agent.shutdown_timeout)

    def remove(self, server_uuid: str) -> None:
        """Remove a server, then its devices: a device in use cannot be taken from its user."""
        self.virt.destroy(server_uuid)
        reach(Point.AGENT_SERVER_DESTROYED)
        for driver in self._drivers.values():
            driver.release(server_uuid)
        reach(Point.AGENT_SERVER_REMOVED)

    def tidy(self, assignment: wire.Assignment) -> None:
        """Remove what a server had and has no more: devices, copies of its disk."""
        server_uuid = assignment["server_uuid"]
        self.virt.forget_disks(server_uuid, assignment["kept_disk"]["id"] if "kept_disk" in assignment else None)
        for driver in self._drivers.values():
            driver.release(server_uuid, keep=_marks(driver, assignment))

    def remove_device(self, driver: str, mark: str) -> None:
        """Remove something of a device driver that is nobody's."""
        self._drivers[driver].remove(mark)

    def _driver_of(self, provider_name: str) -> DeviceDriver:
        if provider_name not in self._owners:
            self._discover()
        try:
            return self._drivers[self._owners[provider_name]]
        except KeyError:
            raise DeviceError(f"there is no device {provider_name} on host {self.name}") from None

    def _discover(self) -> list[Device]:
        found: dict[str, Device] = {}
        owners: dict[str, str] = {}
        for name, driver in self._drivers.items():
            try:
                self._found[name] = driver.discover()
            except Exception:  # whatever it is, what was there is still there, and so are the others' devices
                LOG.exception("Device driver %s failed to discover devices of %s", name, self.name)
            for device in self._found.get(name, []):
                if owners.setdefault(device.name, name) == name:
                    found[device.name] = device
                elif device.name not in self._clashes:
                    self._clashes.add(device.name)
                    LOG.warning("%s is offered by %s, so not by %s", device.name, owners[device.name], name)
        self._owners = owners
        return list(found.values())


def _marks(driver: DeviceDriver, assignment: wire.Assignment) -> frozenset[str]:
    """Return the marks of what a driver makes for an assignment."""
    server_uuid, allocations = assignment["server_uuid"], assignment["devices"]
    return frozenset[str]().union(*(driver.marks(server_uuid, allocation) for allocation in allocations))


def _leaves(allocation: wire.DeviceAllocation) -> bool:
    return "plug" in allocation and allocation["plug"]["leaves"]


def _give_back(driver: DeviceDriver, assignment: wire.Assignment, progress: Progress) -> bool:
    """Remove what a server has beyond an assignment, as soon as the hypervisor, the last one, has let go of it."""
    for _ in range(_GIVE_BACK_TRIES):
        try:
            driver.release(assignment["server_uuid"], keep=_marks(driver, assignment))
        except DeviceError as exc:
            LOG.warning("A device of server %s is not given back yet: %s", assignment["server_uuid"], exc)
            progress.cancelled.wait(_GIVE_BACK_AGAIN_S)
        else:
            return True
    return False
