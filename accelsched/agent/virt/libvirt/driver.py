# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers as libvirt domains on QEMU."""

from __future__ import annotations

import platform
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree
from oslo_log import log

from accelsched import cpu_topology, errors, wire
from accelsched.agent import files
from accelsched.agent.devices import base as devices
from accelsched.agent.images import ImageClient
from accelsched.agent.virt import base
from accelsched.agent.virt.libvirt import (
    backup,
    configdrive,
    insight,
    instance,
    landing,
    media,
    moving,
    owned,
    plugs,
    sending,
    storage,
    unused,
)
from accelsched.agent.virt.libvirt.connection import Connection
from accelsched.agent.virt.libvirt.domain import DISK_TARGET, DomainSpec, domain_xml
from accelsched.agent.virt.libvirt.host import LibvirtHost
from accelsched.agent.virt.libvirt.media import Media
from accelsched.agent.virt.libvirt.owned import Owned
from accelsched.failpoints import Point, reach

LOG = log.getLogger(__name__)

_PRESS_AGAIN_S = 10.0  # a guest that is still booting misses the power button
_LOOK_AGAIN_S = 0.5
# What libvirt says when it cannot save a domain with the devices that it has.
_UNSAVED = frozenset(
    {libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_CONFIG_UNSUPPORTED}
)


class LibvirtDriver(base.VirtDriver):
    """Defines, starts and removes domains that carry our mark, and looks at no other."""

    def __init__(self, context: devices.HostContext) -> None:
        super().__init__(context)
        conf = context.conf
        self._connection = Connection(conf.libvirt.connection_uri)
        self._instances = context.state_path / "instances"
        self._instances.mkdir(mode=0o711, parents=True, exist_ok=True)
        _warn_unreachable(self._instances)
        self._cache = storage.ImageCache(
            self._instances / "_base", ImageClient(conf), max_bytes=conf.glance.max_image_bytes
        )
        self._tidy_due = 0.0  # of the monotonic clock
        self._media = Media(conf, self._cache)
        self._host = LibvirtHost(context, self._connection, self._instances)
        self._owned = Owned(self._connection, context.node_uuid)

    # --- the host -----------------------------------------------------------------------------------------------

    def hypervisor(self) -> wire.HypervisorReport:
        """Ask libvirt what it runs."""
        return self._host.hypervisor()

    def capacity(self) -> base.Capacity:
        """Return the CPUs this process may use, the host's memory, and the disk that holds the servers' files."""
        return self._host.capacity()

    def numa(self) -> wire.NumaTopology | None:
        """Ask libvirt for the host's NUMA nodes."""
        return self._host.numa()

    def traits(self) -> frozenset[str]:
        """Return the image formats that can be booted and, where guests see the host's CPU, what that can do."""
        return self._host.traits()

    @property
    def virt_type(self) -> str:
        """How guests run: kvm or qemu."""
        return self._host.virt_type

    # --- servers ------------------------------------------------------------------------------------------------

    def servers(self) -> list[base.PresentServer]:
        """Return the servers that have a domain with this node's mark, or a directory."""
        domains = self._owned.all()
        return [
            base.PresentServer(
                *(uuid, domain.power, files_.launch, files_.order, files_.incarnation, domain.rescued),
                kept_disks=files_.kept_disks,
                awaited=files_.incoming.exists(),
                plugs=domain.plugs,
                let_go=domain.let_go,
                lacks=domain.lacks,
            )
            for uuid in sorted(domains.keys() | set(instance.server_uuids(self._instances)))
            for files_, domain in [(self._instance(uuid), domains.get(uuid, owned.NONE))]
        ]

    def build(
        self, assignment: wire.Assignment, attachments: Sequence[devices.Attachment], progress: base.Progress
    ) -> None:
        """Fetch images, make the disk and the config drive, define the domain and start it."""
        server_uuid = assignment["server_uuid"]
        files_ = self._instance(server_uuid)
        if self._goes_on(server_uuid, resume=base.to_run(assignment)):
            self._complete(server_uuid)
            self._is_there(files_)
            return
        files_.create(assignment.get("incarnation", 1))
        progress.step("fetching image")
        disk = self._media.disk(assignment, files_, progress)
        if disk is not None:
            media.keep_disk(assignment.get("kept_disk"), files_, progress)
            storage.grow(disk, assignment["flavor"]["disk_gb"])
        rescue = base.rescue_image(assignment)
        if rescue is not None:
            self._media.rescue_disk(rescue, files_, progress)
            self._media.rescue_config_drive(assignment, files_)
        spec = self._spec(assignment, attachments, files_, disk, progress)
        progress.step("starting")
        self._owned.start(domain_xml(spec))
        reach(Point.AGENT_DOMAIN_STARTED)
        self._complete(server_uuid)
        self._is_there(files_)
        if rescue is None:
            files_.rescue_disk.unlink(missing_ok=True)
            files_.rescue_config_drive.unlink(missing_ok=True)

    def _spec(
        self,
        assignment: wire.Assignment,
        attachments: Sequence[devices.Attachment],
        files_: instance.Instance,
        disk: Path | None,
        progress: base.Progress,
    ) -> DomainSpec:
        """Return what a server's domain is to be, with its kernel and its config drive made."""
        rescue = base.rescue_image(assignment)
        boots = rescue or assignment["image"]
        direct_boot = self._media.direct_boot(boots, progress)
        uefi = boots is not None and boots["properties"].get("hw_firmware_type") == "uefi"
        config_drive = None
        if configdrive.wanted(assignment):
            progress.step("making config drive")
            config_drive = files_.config_drive
            if not config_drive.exists():
                self._media.config_drive(config_drive, assignment)
        if rescue is not None and files_.rescue_config_drive.exists():
            config_drive = files_.rescue_config_drive
        return DomainSpec(
            server_uuid=assignment["server_uuid"],
            name=assignment["name"],
            node_uuid=self.context.node_uuid,
            project_id=assignment["project_id"],
            user_id=assignment["user_id"],
            flavor=assignment["flavor"]["name"],
            image_id=assignment["image"]["id"] if assignment["image"] else None,
            virt_type=self.virt_type,
            arch=platform.machine(),
            vcpus=assignment["flavor"]["vcpus"],
            memory_mb=assignment["flavor"]["ram_mb"],
            console=files_.console,
            disk=disk,
            rescue_disk=None if rescue is None else files_.rescue_disk,
            config_drive=config_drive,
            direct_boot=direct_boot,
            nvram=files_.nvram if uefi else None,
            attachments=attachments,
            network=self._media.network(assignment),
            leaving=base.leaving_plugs(assignment),
            cpus=self._host.cpus(assignment),
            cpu_topology=cpu_topology.choose(
                assignment["flavor"], assignment["image"]["properties"] if assignment["image"] else {}
            ),
            cpu_model=self._host.cpu_model,
        )

    def _is_there(self, files_: instance.Instance) -> None:
        """Remember that a server runs here, however it came."""
        files_.mark_launched()
        files_.incoming.unlink(missing_ok=True)

    def prepare_rescue(self, assignment: wire.Assignment, progress: base.Progress) -> None:
        """Make an overlay of the rescue image, and no use of what an earlier rescue left."""
        rescue, files_ = base.rescue_image(assignment), self._instance(assignment["server_uuid"])
        if rescue is not None:
            files_.rescue_disk.unlink(missing_ok=True)
            files_.rescue_config_drive.unlink(missing_ok=True)
            self._media.rescue_disk(rescue, files_, progress)
            self._media.rescue_config_drive(assignment, files_)

    def stop(self, server_uuid: str, grace_s: float, progress: base.Progress) -> None:
        """Press the guest's power button until it has shut down, or switch it off."""
        deadline = time.monotonic() + grace_s
        pressed = float("-inf")
        while self._owned.power(server_uuid) is base.Power.RUNNING and time.monotonic() < deadline:
            progress.check()
            if time.monotonic() - pressed >= _PRESS_AGAIN_S:
                pressed = time.monotonic()
                self._owned.do(server_uuid, lambda domain: domain.shutdown(), "shut down")
            progress.cancelled.wait(_LOOK_AGAIN_S)
        if self._owned.power(server_uuid) is not None:
            self._owned.do(server_uuid, owned.switch_off, "stopped")

    def pause(self, server_uuid: str) -> None:
        """Stop the domain's virtual CPUs."""
        self._owned.do(server_uuid, lambda domain: domain.suspend(), "paused")

    def suspend(self, server_uuid: str, timeout_s: float, progress: base.Progress) -> None:
        """Have libvirt save the domain's memory and stop it; its next start restores it.

        Devices are saved with it where QEMU can, else the guest lets go of them before.
        """

        def save(domain: Any) -> None:
            try:
                domain.managedSave(0)
            except libvirt.libvirtError as exc:
                if exc.get_error_code() not in _UNSAVED:
                    raise
                plugs.put_away(domain, timeout_s, progress)
                reach(Point.AGENT_DEVICES_PUT_AWAY)
                domain.managedSave(0)

        if self._owned.power(server_uuid) is base.Power.SUSPENDED:
            return
        try:
            self._owned.do(server_uuid, save, "suspended")
        except base.PlugError as exc:
            raise base.PowerError(f"the server could not be suspended: {exc}") from exc

    def snapshot(self, server_uuid: str, progress: base.Progress) -> base.Snapshot:
        """Copy the disk: by QEMU while it has it open, else by qemu-img."""
        files_ = self._instance(server_uuid)
        if not files_.disk.exists():
            raise base.SnapshotError("the server has no disk")
        if self._owned.power(server_uuid) in (base.Power.RUNNING, base.Power.PAUSED):
            try:
                self._owned.do(
                    server_uuid,
                    lambda domain: backup.run(domain, DISK_TARGET, files_.snapshot, progress),
                    "copied",
                )
            except base.PowerError as exc:
                raise base.SnapshotError(str(exc)) from exc.__cause__
            files_.own(files_.snapshot)
        else:
            files_.own(files_.disk)
            storage.flatten(files_.disk, files_.snapshot, progress.check)
        return base.Snapshot(files_.snapshot, "qcow2")

    def put_aside(self, server_uuid: str) -> None:
        """Undefine the domain; its firmware's variables are a file of the server and stay."""
        if self._owned.power(server_uuid) is not None:
            self._owned.do(server_uuid, lambda domain: domain.undefineFlags(owned.UNDEFINE_ASIDE), "set aside")

    def files_aside(self, server_uuid: str) -> Mapping[str, Path]:
        """Return the files in the server's directory that are not of this host only, and what its disk stands on."""
        files_ = self._instance_here(server_uuid)
        if self._owned.look(server_uuid, lambda domain: domain, "look for a domain") is not None:
            raise errors.ConflictError(f"server {server_uuid} is not set aside on host {self.context.host}")
        return moving.offered(files_)

    def take_over(self, assignment: wire.Assignment, source: base.RemoteFiles, progress: base.Progress) -> None:
        """Fetch the server's files into its directory."""
        files_ = self._instance(assignment["server_uuid"])
        files_.create(assignment.get("incarnation", 1))
        moving.take_over(files_, assignment, source, self._cache, progress)
        if not base.to_run(assignment):
            files_.mark_launched()

    def departure(self, server_uuid: str) -> wire.Departure:
        """Look at the server's directory."""
        return moving.departure(self._instance_here(server_uuid))

    def departing_files(self, server_uuid: str) -> Mapping[str, Path]:
        """Return the config drive, and the image that the disk stands on."""
        return moving.departing(self._instance_here(server_uuid))

    def await_server(
        self,
        assignment: wire.Assignment,
        attachments: Sequence[devices.Attachment],
        source: base.RunningServer,
        progress: base.Progress,
    ) -> None:
        """Make the server's directory with a disk of the same shape; and write down what its domain would be here."""
        files_ = self._instance(assignment["server_uuid"])
        files_.create(assignment.get("incarnation", 1))
        disk = moving.make_ready(files_, assignment, source, self._cache, progress)
        spec = self._spec(assignment, attachments, files_, disk, progress)
        files.write_atomically(files_.incoming, domain_xml(spec).encode())

    def landing(self, server_uuid: str, domain: str) -> wire.Landing:
        """Put what is of this host into the domain's definition."""
        files_ = self._instance_here(server_uuid)
        try:
            here = files_.incoming.read_text()
        except FileNotFoundError:
            raise errors.NotFoundError(f"server {server_uuid} is not awaited on host {self.context.host}") from None
        conf = self.context.conf
        address = conf.libvirt.live_migration_inbound_addr or conf.agent.my_ip or platform.node()
        return {"xml": landing.adapt(domain, here), "address": address}

    def landed(self, server_uuid: str) -> bool:
        """Ask libvirt whether the domain runs here."""
        return self._owned.look(server_uuid, sending.has_landed, "tell of a domain")

    def send(self, assignment: wire.Assignment, destination: base.Destination, progress: base.Progress) -> None:
        """Have libvirt migrate the domain. One that an agent which is gone had begun goes on, and is seen through."""
        server_uuid = assignment["server_uuid"]
        flavor = assignment["flavor"]
        gib = flavor["ram_mb"] / 1024 + flavor["disk_gb"]
        failure: base.MigrationError | None = None
        where = self._whereabouts(server_uuid)
        if where is sending.Whereabouts.ON_ITS_WAY:
            self._see_through(server_uuid, gib, progress)
            progress.check()
            where = self._whereabouts(server_uuid)
        elif where is sending.Whereabouts.HERE and not destination.aborted:
            failure = self._go(server_uuid, destination, gib, progress)
            progress.check()
            if failure is None:
                return
            where = self._whereabouts(server_uuid)
        # What is not seen to have gone from here is gone only if it is seen there.
        if where in (sending.Whereabouts.GONE, sending.Whereabouts.OFF) and destination.landed():
            return
        if where is sending.Whereabouts.ON_ITS_WAY:
            raise errors.UnavailableError("libvirt still has the migration under way")
        if destination.aborted:
            raise base.MigrationError("the migration was aborted")
        if where is not sending.Whereabouts.HERE:
            raise base.MigrationError(str(failure or "the server stopped before it was there")) from failure
        raise failure or base.MigrationError("the migration failed; see libvirt's log on both hosts")

    def hasten(self, server_uuid: str) -> None:
        """Stop the virtual CPUs; libvirt has them go on where the domain arrives."""
        if self._whereabouts(server_uuid) is sending.Whereabouts.ON_ITS_WAY:
            self.pause(server_uuid)

    def _whereabouts(self, server_uuid: str) -> sending.Whereabouts:
        return self._owned.look(server_uuid, sending.whereabouts, "tell where a domain is")

    def _go(
        self, server_uuid: str, destination: base.Destination, gib: float, progress: base.Progress
    ) -> base.MigrationError | None:
        """Migrate a domain; return why that failed, None when it is there."""
        options = self.context.conf.libvirt

        def described(domain: Any) -> tuple[Any, str]:
            return domain, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)

        domain, xml = self._owned.look(server_uuid, described, "describe a domain")
        try:
            there = destination.landing(xml)
        except (errors.NotFoundError, errors.ConflictError) as exc:
            return base.UnfitTargetError(str(exc))
        definition = etree.fromstring(xml.encode())
        uri = options.live_migration_uri.replace("%s", there["address"])
        call = sending.Sending(
            *(options.connection_uri, server_uuid, uri),
            *(sending.parameters(there, options), sending.flags(definition, options)),
        )
        watch = sending.Watch(domain, sending.downtime(definition, options), options, gib, progress)
        late = watch.until(call.over)
        if call.error is None:
            return None
        if late:
            return base.MigrationError("it took longer than [libvirt] live_migration_completion_timeout allows")
        unfit = not watch.moved and sending.is_about_target(call.error)
        return (base.UnfitTargetError if unfit else base.MigrationError)(str(call.error))

    def _see_through(self, server_uuid: str, gib: float, progress: base.Progress) -> None:
        """Wait until a migration is over that nobody waits for any more."""
        options = self.context.conf.libvirt
        domain = self._owned.look(server_uuid, lambda domain: domain, "look for a domain")
        if domain is None:
            return

        def over(seconds: float) -> bool:
            progress.cancelled.wait(seconds)
            return self._whereabouts(server_uuid) is not sending.Whereabouts.ON_ITS_WAY

        definition = etree.fromstring(domain.XMLDesc().encode())
        sending.Watch(domain, sending.downtime(definition, options), options, gib, progress).until(over)

    def forget_disks(self, server_uuid: str, wanted: str | None) -> None:
        """Remove copies of the disk from the server's directory."""
        self._instance(server_uuid).forget_disks(wanted)

    def plugs(self, server_uuid: str) -> Mapping[str, bool]:
        """Read the domain's mark."""
        return self._owned.all().get(server_uuid, owned.NONE).plugs

    def attach(self, server_uuid: str, plug: str, attachments: Sequence[devices.Attachment]) -> None:
        """Attach devices to the domain, after its mark says so."""
        self._plug(server_uuid, lambda domain: plugs.attach(domain, plug, attachments))

    def detach(self, server_uuid: str, plug: str, timeout_s: float, progress: base.Progress) -> None:
        """Have the guest let go of devices."""
        self._plug(server_uuid, lambda domain: plugs.detach(domain, plug, timeout_s, progress))

    def forget_plug(self, server_uuid: str, plug: str) -> None:
        """Strike devices from the domain's mark."""
        self._plug(server_uuid, lambda domain: plugs.forget(domain, plug))

    def _plug(self, server_uuid: str, function: Callable[[Any], None]) -> None:
        try:
            self._owned.do(server_uuid, function, "changed")
        except base.PowerError as exc:
            raise base.PlugError(str(exc)) from exc.__cause__

    def carried_out(self, server_uuid: str, order: base.CarriedOut) -> None:
        """Remember the order in the server's directory."""
        self._instance(server_uuid).note_order(order)

    def destroy(self, server_uuid: str) -> None:
        """Stop and undefine the domain if it carries our mark, then remove the server's directory."""
        files_ = self._instance(server_uuid)
        self._owned.remove(server_uuid)
        files_.remove()

    def tidy(self, assignments: Sequence[wire.Assignment]) -> None:
        """Remove cached images that are old and not in use."""
        options = self.context.conf.image_cache
        if not options.remove_unused_base_images or time.monotonic() < self._tidy_due:
            return
        self._tidy_due = time.monotonic() + options.manager_interval
        try:
            used = unused.images_in_use(self._instances, self._cache.directory, assignments)
        except base.BuildError as exc:  # perhaps it stands on what would be removed
            LOG.warning("No cached image is removed: %s: %s", exc, exc.__cause__)
            return
        for name in self._cache.remove_unused(used, options.remove_unused_original_minimum_age_seconds):
            LOG.info("Image %s, which nobody used any more, was removed from the cache", name)

    def interface(self, server_uuid: str) -> wire.Interface | None:
        """Ask libvirt for the leases of a server's interface."""
        try:
            return self._connection.call(lambda connection: insight.interface(connection, server_uuid))
        except libvirt.libvirtError as exc:
            if exc.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK):
                return None
            raise errors.UnavailableError(f"libvirt cannot tell the addresses of {server_uuid}: {exc}") from exc

    def diagnostics(self, server_uuid: str) -> wire.Diagnostics:
        """Ask libvirt what the domain has done since it was started."""
        if self._owned.power(server_uuid) not in (base.Power.RUNNING, base.Power.PAUSED):
            raise errors.NotFoundError(f"server {server_uuid} does not run on host {self.context.host}")
        try:
            return self._connection.call(
                lambda connection: insight.diagnostics(connection.lookupByUUIDString(server_uuid), self.virt_type)
            )
        except libvirt.libvirtError as exc:  # it stopped just now
            raise errors.NotFoundError(f"server {server_uuid} does not tell: {exc}") from exc

    def inject_nmi(self, server_uuid: str) -> None:
        """Ask libvirt."""
        if self._owned.power(server_uuid) not in (base.Power.RUNNING, base.Power.PAUSED):
            raise errors.NotFoundError(f"server {server_uuid} does not run on host {self.context.host}")
        try:
            self._owned.do(server_uuid, lambda domain: domain.injectNMI(), "given an NMI")
        except base.PowerError as exc:
            raise errors.ConflictError(str(exc)) from exc

    def console_output(self, server_uuid: str) -> str:
        """Return the end of the serial console's log."""
        files_ = self._instance_here(server_uuid)
        return files_.console_tail(self.context.conf.agent.console_bytes)

    def close(self) -> None:
        """Close the connection to libvirt."""
        self._connection.close()

    # --- parts --------------------------------------------------------------------------------------------------

    def _instance(self, server_uuid: str) -> instance.Instance:
        return instance.Instance(self._instances, server_uuid)

    def _instance_here(self, server_uuid: str) -> instance.Instance:
        """Return the directory of a server that somebody asks for.

        :raises accelsched.errors.NotFoundError: when there is none
        """
        try:
            files_ = self._instance(server_uuid)
        except ValueError as exc:
            raise errors.NotFoundError(str(exc)) from exc
        if not files_.directory.exists():
            raise errors.NotFoundError(f"server {server_uuid} is not on host {self.context.host}")
        return files_

    def _goes_on(self, server_uuid: str, *, resume: bool) -> bool:
        """Have a domain run that is there and does, or is paused; return whether there is one.

        :param resume: one that is paused is to go on; one that came paused stays so
        """
        power = self._owned.power(server_uuid)
        if power is base.Power.PAUSED and resume:
            self._owned.do(server_uuid, lambda domain: domain.resume(), "resumed")
        return power in (base.Power.RUNNING, base.Power.PAUSED)

    def _complete(self, server_uuid: str) -> None:
        """Give a domain back what its guest let go of to be suspended."""
        try:
            self._owned.do(server_uuid, plugs.give_back, "given back its devices")
        except (base.PlugError, base.PowerError) as exc:
            raise base.BuildError(str(exc)) from exc.__cause__


def _warn_unreachable(directory: Path) -> None:
    """Say so when QEMU, which libvirt runs as a user of its own, will not reach the files in a directory."""
    for path in (directory, *directory.parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            LOG.warning("[DEFAULT] state_path: %s cannot be entered by others; QEMU will not find its disks", path)
