# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers as libvirt domains on QEMU."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import libvirt
import os_traits
from lxml import etree
from oslo_log import log

from accelsched import cpu_topology, errors, names, wire
from accelsched.agent import files, numa
from accelsched.agent.devices import base as devices
from accelsched.agent.images import Image, ImageClient
from accelsched.agent.virt import base, kvm
from accelsched.agent.virt.libvirt import (
    backup,
    capabilities,
    configdrive,
    instance,
    landing,
    moving,
    plugs,
    sending,
    storage,
    unused,
)
from accelsched.agent.virt.libvirt.connection import Connection
from accelsched.agent.virt.libvirt.cpus import Cpus, GuestNode, Model
from accelsched.agent.virt.libvirt.domain import DISK_TARGET, NAMESPACE, DirectBoot, DomainSpec, domain_xml
from accelsched.conf import compute
from accelsched.conf import libvirt as libvirt_conf

LOG = log.getLogger(__name__)

_PRESS_AGAIN_S = 10.0  # a guest that is still booting misses the power button
_LOOK_AGAIN_S = 0.5

_Result = TypeVar("_Result")

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_UNDEFINE_ASIDE = (_UNDEFINE & ~libvirt.VIR_DOMAIN_UNDEFINE_NVRAM) | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM


class _Domain(NamedTuple):
    """What is to be known of a domain of ours."""

    power: base.Power
    rescued: bool
    plugs: Mapping[str, bool]


_NO_DOMAIN = _Domain(base.Power.ABSENT, False, {})


class LibvirtDriver(base.VirtDriver):
    """Defines, starts and removes domains that carry our mark, and looks at no other."""

    def __init__(self, context: devices.HostContext) -> None:
        super().__init__(context)
        conf = context.conf
        self._connection = Connection(conf.libvirt.connection_uri)
        self._instances = context.state_path / "instances"
        self._instances.mkdir(mode=0o711, parents=True, exist_ok=True)
        _warn_unreachable(self._instances)
        every = frozenset(os.sched_getaffinity(0))
        compute.check_host(conf, every)
        self._shared_cpus = compute.shared(conf, every)
        self._float_on = frozenset[int]() if self._shared_cpus == every else self._shared_cpus
        self._cache = storage.ImageCache(
            self._instances / "_base", ImageClient(conf), max_bytes=conf.glance.max_image_bytes
        )
        self._cpu_model = Model(conf.libvirt.cpu_mode, conf.libvirt.cpu_model, libvirt_conf.cpu_features(conf))
        self._tidy_due = 0.0  # of the monotonic clock
        self._virt_type: str | None = None
        self._probe_lock = threading.Lock()

    # --- the host -----------------------------------------------------------------------------------------------

    def hypervisor(self) -> wire.HypervisorReport:
        """Ask libvirt what it runs."""
        version = self._ask(lambda connection: connection.getVersion(), "tell its version")
        libvirt_version = self._ask(lambda connection: connection.getLibVersion(), "tell its version")
        self._check_network()
        self._check_cpu_model()
        return {
            "type": "QEMU",
            "version": int(version),
            "hostname": self.context.host,
            "cpu_arch": platform.machine(),
            "virt_type": self.virt_type,
            "libvirt_version": int(libvirt_version),
            "kernel": platform.release(),
        }

    def _check_network(self) -> None:
        """Find the network that servers are to be on.

        :raises accelsched.errors.UnavailableError: when it is not there or not active; no server could be started
        """
        name = self.context.conf.libvirt.network
        if name is None:
            return
        network = self._ask(lambda connection: connection.networkLookupByName(name), "find [libvirt] network")
        if not network.isActive():
            raise errors.UnavailableError(f"[libvirt] network: {name} is not active: virsh net-start {name}")

    def _check_cpu_model(self) -> None:
        """Find that guests can have the CPU that they are to have.

        :raises accelsched.errors.UnavailableError: when they cannot; no server could be started
        """
        mode = self._cpu_model.mode
        if mode is None:
            return
        where = (None, platform.machine(), "q35", self.virt_type)
        xml = self._ask(lambda connection: connection.getDomainCapabilities(*where), "tell CPU models")
        if self._cpu_model.name not in capabilities.cpu_models(xml, mode):
            what = "cpu_mode" if self._cpu_model.name is None else "cpu_model"
            raise errors.UnavailableError(
                f"[libvirt] {what}: {self._cpu_model.name or mode} is not to be had on this host with "
                f"{self.virt_type}: virsh domcapabilities --virttype {self.virt_type}"
            )

    def capacity(self) -> base.Capacity:
        """Return the CPUs this process may use, the host's memory, and the disk that holds the servers' files."""
        memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
        disk_gb = shutil.disk_usage(self._instances).total // storage.GIB
        return base.Capacity(len(self._shared_cpus), memory_mb, disk_gb, len(compute.dedicated(self.context.conf)))

    def numa(self) -> wire.NumaTopology | None:
        """Ask libvirt for the host's NUMA nodes."""
        nodes = capabilities.numa_nodes(self._ask(lambda connection: connection.getCapabilities(), "tell NUMA nodes"))
        if not nodes:
            return None
        return numa.topology(nodes, shared=self._shared_cpus, dedicated=compute.dedicated(self.context.conf))

    def traits(self) -> frozenset[str]:
        """Return the image formats that can be booted and, where guests see the host's CPU, what that can do."""
        traits = {
            os_traits.COMPUTE_ACCELERATORS,
            names.MOVES,
            names.MOVES_LIVE,
            os_traits.COMPUTE_IMAGE_TYPE_QCOW2,
            os_traits.COMPUTE_IMAGE_TYPE_RAW,
        }
        if self.virt_type == "kvm":
            known = set(os_traits.get_traits("HW_CPU_X86_"))
            traits |= {f"HW_CPU_X86_{flag.upper()}" for flag in _cpu_flags()} & known
        return frozenset(traits)

    @property
    def virt_type(self) -> str:
        """How guests run: kvm or qemu; ``auto`` is found out once."""
        with self._probe_lock:
            if self._virt_type is None:
                self._virt_type = self.context.conf.libvirt.virt_type
                if self._virt_type == "auto":
                    probe = kvm.kvm_works()
                    self._virt_type = "kvm" if probe else "qemu"
                    LOG.info("Guests run with %s: %s", self._virt_type, probe.reason)
            return self._virt_type

    # --- servers ------------------------------------------------------------------------------------------------

    def servers(self) -> list[base.PresentServer]:
        """Return the servers that have a domain with this node's mark, or a directory."""
        domains = self._ask(self._own_domains, "list domains")
        return [
            base.PresentServer(
                *(uuid, power, files_.launch, files_.order, files_.incarnation, rescued),
                kept_disks=files_.kept_disks,
                awaited=files_.incoming.exists(),
                plugs=plugs_,
            )
            for uuid in sorted(domains.keys() | set(instance.server_uuids(self._instances)))
            for files_, (power, rescued, plugs_) in [(self._instance(uuid), domains.get(uuid, _NO_DOMAIN))]
        ]

    def build(
        self, assignment: wire.Assignment, attachments: Sequence[devices.Attachment], progress: base.Progress
    ) -> None:
        """Fetch images, make the disk and the config drive, define the domain and start it."""
        server_uuid = assignment["server_uuid"]
        files_ = self._instance(server_uuid)
        if self._goes_on(server_uuid, resume=base.to_run(assignment)):
            self._is_there(files_)
            return
        files_.create(assignment.get("incarnation", 1))
        progress.step("fetching image")
        disk = self._disk(assignment, files_, progress)
        if disk is not None:
            _keep_disk(assignment.get("kept_disk"), files_, progress)
            storage.grow(disk, assignment["flavor"]["disk_gb"])
        rescue = base.rescue_image(assignment)
        if rescue is not None:
            self._rescue_disk(rescue, files_, progress)
            self._rescue_config_drive(assignment, files_)
        spec = self._spec(assignment, attachments, files_, disk, progress)
        progress.step("starting")
        self._start(domain_xml(spec))
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
        direct_boot = self._direct_boot(boots, progress)
        uefi = boots is not None and boots["properties"].get("hw_firmware_type") == "uefi"
        config_drive = None
        if configdrive.wanted(assignment):
            progress.step("making config drive")
            config_drive = files_.config_drive
            if not config_drive.exists():
                self._write_config_drive(config_drive, assignment)
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
            network=self._network(assignment),
            leaving=base.leaving_plugs(assignment),
            cpus=self._cpus(assignment),
            cpu_topology=cpu_topology.choose(
                assignment["flavor"], assignment["image"]["properties"] if assignment["image"] else {}
            ),
            cpu_model=self._cpu_model,
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
            self._rescue_disk(rescue, files_, progress)
            self._rescue_config_drive(assignment, files_)

    def stop(self, server_uuid: str, grace_s: float, progress: base.Progress) -> None:
        """Press the guest's power button until it has shut down, or switch it off."""
        deadline = time.monotonic() + grace_s
        pressed = float("-inf")
        while self._power(server_uuid) is base.Power.RUNNING and time.monotonic() < deadline:
            progress.check()
            if time.monotonic() - pressed >= _PRESS_AGAIN_S:
                pressed = time.monotonic()
                self._with_domain(server_uuid, lambda domain: domain.shutdown(), "shut down")
            progress.cancelled.wait(_LOOK_AGAIN_S)
        if self._power(server_uuid) is not None:
            self._with_domain(server_uuid, _switch_off, "stopped")

    def pause(self, server_uuid: str) -> None:
        """Stop the domain's virtual CPUs."""
        self._with_domain(server_uuid, lambda domain: domain.suspend(), "paused")

    def suspend(self, server_uuid: str) -> None:
        """Have libvirt save the domain's memory and stop it; its next start restores it."""
        if self._power(server_uuid) is not base.Power.SUSPENDED:
            self._with_domain(server_uuid, lambda domain: domain.managedSave(0), "suspended")

    def snapshot(self, server_uuid: str, progress: base.Progress) -> base.Snapshot:
        """Copy the disk: by QEMU while it has it open, else by qemu-img."""
        files_ = self._instance(server_uuid)
        if not files_.disk.exists():
            raise base.SnapshotError("the server has no disk")
        if self._power(server_uuid) in (base.Power.RUNNING, base.Power.PAUSED):
            try:
                self._with_domain(
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
        if self._power(server_uuid) is not None:
            self._with_domain(server_uuid, lambda domain: domain.undefineFlags(_UNDEFINE_ASIDE), "set aside")

    def files_aside(self, server_uuid: str) -> Mapping[str, Path]:
        """Return the files in the server's directory that are not of this host only, and what its disk stands on."""
        files_ = self._instance_here(server_uuid)
        if self._ask(lambda connection: self._find(connection, server_uuid), "look for a domain") is not None:
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
        return self._ask(lambda connection: sending.has_landed(self._find(connection, server_uuid)), "tell of a domain")

    def send(self, assignment: wire.Assignment, destination: base.Destination, progress: base.Progress) -> None:
        """Have libvirt migrate the domain. One that an agent which is gone had begun goes on, and is seen through."""
        server_uuid = assignment["server_uuid"]
        flavor = assignment["flavor"]
        gib = flavor["ram_mb"] / 1024 + flavor["disk_gb"]
        failure: str | None = None
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
            raise base.MigrationError(failure or "the server stopped before it was there")
        raise base.MigrationError(failure or "the migration failed; see libvirt's log on both hosts")

    def hasten(self, server_uuid: str) -> None:
        """Stop the virtual CPUs; libvirt has them go on where the domain arrives."""
        if self._whereabouts(server_uuid) is sending.Whereabouts.ON_ITS_WAY:
            self.pause(server_uuid)

    def _whereabouts(self, server_uuid: str) -> sending.Whereabouts:
        return self._ask(
            lambda connection: sending.whereabouts(self._find(connection, server_uuid)), "tell where a domain is"
        )

    def _go(self, server_uuid: str, destination: base.Destination, gib: float, progress: base.Progress) -> str | None:
        """Migrate a domain; return why that failed, None when it is there."""
        options = self.context.conf.libvirt

        def described(connection: Any) -> tuple[Any, str]:
            domain = self._find(connection, server_uuid)
            return domain, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)

        domain, xml = self._ask(described, "describe a domain")
        try:
            there = destination.landing(xml)
        except (errors.NotFoundError, errors.ConflictError) as exc:
            return str(exc)
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
        return "it took longer than [libvirt] live_migration_completion_timeout allows" if late else str(call.error)

    def _see_through(self, server_uuid: str, gib: float, progress: base.Progress) -> None:
        """Wait until a migration is over that nobody waits for any more."""
        options = self.context.conf.libvirt
        domain = self._ask(lambda connection: self._find(connection, server_uuid), "look for a domain")
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
        return self._ask(self._own_domains, "list domains").get(server_uuid, _NO_DOMAIN).plugs

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
            self._with_domain(server_uuid, function, "changed")
        except base.PowerError as exc:
            raise base.PlugError(str(exc)) from exc.__cause__

    def carried_out(self, server_uuid: str, order: base.CarriedOut) -> None:
        """Remember the order in the server's directory."""
        self._instance(server_uuid).note_order(order)

    def destroy(self, server_uuid: str) -> None:
        """Stop and undefine the domain if it carries our mark, then remove the server's directory."""
        files_ = self._instance(server_uuid)
        self._ask(lambda connection: self._remove_domain(connection, server_uuid), "remove the domain")
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

        def ask(connection: Any) -> wire.Interface | None:
            name = _mark(connection.lookupByUUIDString(server_uuid)).get("network")
            if name is None:
                return None
            leases = connection.networkLookupByName(name).DHCPLeases(names.mac_address(server_uuid))
            return {"network": name, "addresses": sorted(lease["ipaddr"] for lease in leases)}

        try:
            return self._connection.call(ask)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK):
                return None
            raise errors.UnavailableError(f"libvirt cannot tell the addresses of {server_uuid}: {exc}") from exc

    def diagnostics(self, server_uuid: str) -> wire.Diagnostics:
        """Ask libvirt what the domain has done since it was started."""
        if self._power(server_uuid) not in (base.Power.RUNNING, base.Power.PAUSED):
            raise errors.NotFoundError(f"server {server_uuid} does not run on host {self.context.host}")
        try:
            return self._connection.call(lambda connection: self._look_inside(connection, server_uuid))
        except libvirt.libvirtError as exc:  # it stopped just now
            raise errors.NotFoundError(f"server {server_uuid} does not tell: {exc}") from exc

    def _look_inside(self, connection: Any, server_uuid: str) -> wire.Diagnostics:
        domain = connection.lookupByUUIDString(server_uuid)
        cpus, _ = domain.vcpus()
        disks: list[wire.DiskDetails] = []
        described = etree.fromstring(domain.XMLDesc().encode())
        nics = [
            _nic(address, domain.interfaceStats(address))
            for address in (mac.get("address", "") for mac in described.iterfind("./devices/interface/mac"))
        ]
        for target in described.iterfind("./devices/disk/target"):
            told = domain.blockStats(target.get("dev"))
            disks.append(
                {
                    "read_requests": told[0],
                    "read_bytes": told[1],
                    "write_requests": told[2],
                    "write_bytes": told[3],
                    "errors_count": max(told[4], 0),  # -1: QEMU does not count them
                }
            )
        return {
            "state": _power_of(domain).value,
            "driver": "libvirt",
            "hypervisor": self.virt_type,
            "uptime": None,
            "cpus": [{"id": number, "time": time_ns} for number, _, time_ns, _ in cpus],
            "disks": disks,
            "nics": nics,
            "memory_mb": domain.maxMemory() // 1024,
        }

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

    def _disk(self, assignment: wire.Assignment, files_: instance.Instance, progress: base.Progress) -> Path | None:
        image, size_gb, restore = assignment["image"], assignment["flavor"]["disk_gb"], assignment.get("restore")
        if files_.disk.exists():
            return files_.disk
        if restore is not None:
            if restore["disk_format"] != "qcow2":
                raise base.BuildError(f"image {restore['id']}, of the server's disk, is not qcow2 any more")
            self._cache.save(Image.of(restore), files_.disk, progress.check)
            return files_.disk
        if image is None:
            if size_gb == 0:
                return None
            storage.create_disk(files_.disk, None, "", size_gb)
            return files_.disk
        cached = self._fetch(image, progress)
        progress.step("making disk")
        storage.create_disk(files_.disk, cached, image["disk_format"], size_gb)
        return files_.disk

    def _rescue_disk(self, image: wire.ImageSpec, files_: instance.Instance, progress: base.Progress) -> None:
        """Make the disk to be rescued with, as large as its image, unless it is there."""
        storage.create_disk(files_.rescue_disk, self._fetch(image, progress), image["disk_format"], 0)

    def _rescue_config_drive(self, assignment: wire.Assignment, files_: instance.Instance) -> None:
        """Make the config drive that tells a guest its password while it is rescued, unless it is there.

        The password is told with the order, and with nothing after that was carried out: the drive has to last.
        """
        order = assignment["order"]
        if "admin_pass" in order and not files_.rescue_config_drive.exists():
            told: wire.Assignment = {**assignment, "admin_pass": order["admin_pass"]}
            self._write_config_drive(files_.rescue_config_drive, told)

    def _write_config_drive(self, path: Path, assignment: wire.Assignment) -> None:
        image = configdrive.iso_image(configdrive.contents(assignment, self._network(assignment)))
        files.write_atomically(path, image, mode=0o600)

    def _fetch(self, image: wire.ImageSpec, progress: base.Progress) -> Path:
        return self._cache.fetch(Image.of(image), progress.check)

    def _direct_boot(self, image: wire.ImageSpec | None, progress: base.Progress) -> DirectBoot | None:
        properties = image["properties"] if image else {}
        kernel_id, ramdisk_id = properties.get("kernel_id"), properties.get("ramdisk_id")
        if not kernel_id:
            return None
        progress.step("fetching kernel")
        kernel = self._cache.fetch_by_id(kernel_id, progress.check)
        initrd = self._cache.fetch_by_id(ramdisk_id, progress.check) if ramdisk_id else None
        command_line = properties.get("os_command_line") or self.context.conf.libvirt.kernel_args
        return DirectBoot(kernel, initrd, command_line)

    def _network(self, assignment: wire.Assignment) -> str | None:
        """Return the network that a server gets an interface on."""
        network: str | None = self.context.conf.libvirt.network
        return network if assignment.get("networks") == "auto" else None

    def _cpus(self, assignment: wire.Assignment) -> Cpus:
        """Return which of the host's CPUs and NUMA nodes a server's are on."""
        placed = assignment.get("numa")
        if not placed:
            return Cpus(float_on=self._float_on)
        told = {node["node"]: node for node in (self.numa() or {"nodes": []})["nodes"]}
        nodes = []
        for node in placed:
            here = told.get(node["node"])
            if here is None:
                raise base.BuildError(f"there is no NUMA node {node['node']} on this host any more")
            nodes.append(GuestNode.of(node, here))
        return Cpus(nodes=tuple(nodes))

    def _power(self, server_uuid: str) -> base.Power | None:
        domain = self._ask(self._own_domains, "list domains").get(server_uuid)
        return None if domain is None else domain.power

    def _goes_on(self, server_uuid: str, *, resume: bool) -> bool:
        """Have a domain run that is there and does, or is paused; return whether there is one.

        :param resume: one that is paused is to go on; one that came paused stays so
        """
        power = self._power(server_uuid)
        if power is base.Power.PAUSED and resume:
            self._with_domain(server_uuid, lambda domain: domain.resume(), "resumed")
        return power in (base.Power.RUNNING, base.Power.PAUSED)

    def _with_domain(self, server_uuid: str, function: Callable[[Any], object], participle: str) -> None:
        """Do something with a server's domain.

        :raises accelsched.agent.virt.base.PowerError: when it has none, or libvirt refuses
        """

        def call(connection: Any) -> None:
            domain = self._find(connection, server_uuid)
            if domain is None:
                raise base.PowerError(f"the server could not be {participle}: it has no domain")
            function(domain)

        try:
            self._connection.call(call)
        except libvirt.libvirtError as exc:
            raise base.PowerError(f"the server could not be {participle}: {exc}") from exc

    def _ask(self, function: Callable[[Any], _Result], what: str) -> _Result:
        try:
            return self._connection.call(function)
        except libvirt.libvirtError as exc:
            raise errors.UnavailableError(f"libvirt cannot {what}: {exc}") from exc

    def _own_domains(self, connection: Any) -> dict[str, _Domain]:
        """Return every domain with this node's mark, by server uuid."""
        domains = {}
        for domain in connection.listAllDomains():
            try:
                mark = _mark(domain)
                if mark.get("node") == self.context.node_uuid:
                    domains[domain.UUIDString()] = _Domain(
                        _power_of(domain), mark.get("rescue") == "yes", plugs.plugs_of(mark)
                    )
            except libvirt.libvirtError as exc:
                if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it went while we looked
                    raise
        return domains

    def _start(self, xml: str) -> None:
        def start(connection: Any) -> None:
            domain = connection.defineXML(xml)
            if not domain.isActive():
                domain.create()

        try:
            self._connection.call(start)
        except libvirt.libvirtError as exc:
            raise base.BuildError("the hypervisor could not start the server") from exc

    def _remove_domain(self, connection: Any, server_uuid: str) -> None:
        try:
            domain = self._find(connection, server_uuid)
            if domain is None:
                return
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefineFlags(_UNDEFINE)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise

    def _find(self, connection: Any, server_uuid: str) -> Any:
        """Return a server's domain; None when it has none here.

        Agents may share one libvirt, and a server that goes from one to the other has its domain where it is now.

        :raises accelsched.errors.ConflictError: when there is one of that uuid that nobody made who marks what he makes
        """
        try:
            domain = connection.lookupByUUIDString(server_uuid)
            node = _mark(domain).get("node")
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        if node is None:
            raise errors.ConflictError(f"domain {server_uuid} does not carry the mark of this node")
        return domain if node == self.context.node_uuid else None


def _keep_disk(kept: wire.KeptDisk | None, files_: instance.Instance, progress: base.Progress) -> None:
    """Copy a disk that may be wanted again as it is now, or put the copy in its place."""
    if kept is None:
        return
    copy = files_.kept_disk(kept["id"])
    if not kept["restore"]:
        progress.step("copying disk")
        storage.copy(files_.disk, copy, progress.check)
    elif copy.exists():
        copy.replace(files_.disk)
        files.sync_directory(files_.directory)


def _nic(mac: str, told: Sequence[int]) -> wire.NicDetails:
    """Return what libvirt told of an interface: octets, packets, errors and drops, received and then transmitted."""
    rx_octets, rx_packets, rx_errors, rx_drop, tx_octets, tx_packets, tx_errors, tx_drop = told
    return {
        "mac_address": mac,
        "rx_octets": rx_octets,
        "rx_packets": rx_packets,
        "rx_errors": rx_errors,
        "rx_drop": rx_drop,
        "tx_octets": tx_octets,
        "tx_packets": tx_packets,
        "tx_errors": tx_errors,
        "tx_drop": tx_drop,
    }


def _power_of(domain: Any) -> base.Power:
    if not domain.isActive():
        return base.Power.SUSPENDED if domain.hasManagedSaveImage() else base.Power.STOPPED
    state, reason = domain.state()
    paused = state == libvirt.VIR_DOMAIN_PAUSED and reason != libvirt.VIR_DOMAIN_PAUSED_STARTING_UP
    return base.Power.PAUSED if paused else base.Power.RUNNING


def _switch_off(domain: Any) -> None:
    if domain.hasManagedSaveImage():
        domain.managedSaveRemove()
    try:
        if domain.isActive():
            domain.destroy()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it stopped by itself just now
            raise


def _mark(domain: Any) -> etree._Element:
    """Return the mark that a domain carries: whose it is, and what it has. An empty one when it carries none."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return etree.Element("none")
        raise
    element = etree.fromstring(text)
    return element if element.tag.endswith("server") else etree.Element("none")


def _warn_unreachable(directory: Path) -> None:
    """Say so when QEMU, which libvirt runs as a user of its own, will not reach the files in a directory."""
    for path in (directory, *directory.parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            LOG.warning("[DEFAULT] state_path: %s cannot be entered by others; QEMU will not find its disks", path)


def _cpu_flags() -> set[str]:
    try:
        match = re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text("ascii", "replace"), re.MULTILINE)
    except OSError:
        return set()
    return set(match.group(1).split()) if match else set()
