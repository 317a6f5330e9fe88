# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The host that servers are on, as libvirt and its kernel tell of it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import threading
from pathlib import Path

import os_traits
from oslo_log import log

from accelsched import errors, names, wire
from accelsched.agent import numa
from accelsched.agent.devices import base as devices
from accelsched.agent.virt import base, kvm
from accelsched.agent.virt.libvirt import capabilities, storage
from accelsched.agent.virt.libvirt.connection import Connection
from accelsched.agent.virt.libvirt.cpus import Cpus, GuestNode, Model
from accelsched.conf import compute
from accelsched.conf import libvirt as libvirt_conf

LOG = log.getLogger(__name__)


class LibvirtHost:
    """What it is, what it has, and where on it a server's CPUs are."""

    def __init__(self, context: devices.HostContext, connection: Connection, instances: Path) -> None:
        """Read the configuration.

        :param instances: the directory of the servers' files
        :raises accelsched.errors.ConfigurationError: it names CPUs that the host does not have
        """
        self._context = context
        self._connection = connection
        self._instances = instances
        conf = context.conf
        every = frozenset(os.sched_getaffinity(0))
        compute.check_host(conf, every)
        self._shared_cpus = compute.shared(conf, every)
        self._float_on = frozenset[int]() if self._shared_cpus == every else self._shared_cpus
        self.cpu_model = Model(conf.libvirt.cpu_mode, conf.libvirt.cpu_model, libvirt_conf.cpu_features(conf))
        self._virt_type: str | None = None
        self._probe_lock = threading.Lock()

    def hypervisor(self) -> wire.HypervisorReport:
        """Ask libvirt what it runs."""
        version = self._connection.ask(lambda connection: connection.getVersion(), "tell its version")
        libvirt_version = self._connection.ask(lambda connection: connection.getLibVersion(), "tell its version")
        self._check_network()
        self._check_cpu_model()
        return {
            "type": "QEMU",
            "version": int(version),
            "hostname": self._context.host,
            "cpu_arch": platform.machine(),
            "virt_type": self.virt_type,
            "libvirt_version": int(libvirt_version),
            "kernel": platform.release(),
        }

    def _check_network(self) -> None:
        """Find the network that servers are to be on.

        :raises accelsched.errors.UnavailableError: when it is not there or not active; no server could be started
        """
        name = self._context.conf.libvirt.network
        if name is None:
            return
        network = self._connection.ask(
            lambda connection: connection.networkLookupByName(name), "find [libvirt] network"
        )
        if not network.isActive():
            raise errors.UnavailableError(f"[libvirt] network: {name} is not active: virsh net-start {name}")

    def _check_cpu_model(self) -> None:
        """Find that guests can have the CPU that they are to have.

        :raises accelsched.errors.UnavailableError: when they cannot; no server could be started
        """
        mode = self.cpu_model.mode
        if mode is None:
            return
        where = (None, platform.machine(), "q35", self.virt_type)
        xml = self._connection.ask(lambda connection: connection.getDomainCapabilities(*where), "tell CPU models")
        if self.cpu_model.name not in capabilities.cpu_models(xml, mode):
            what = "cpu_mode" if self.cpu_model.name is None else "cpu_model"
            raise errors.UnavailableError(
                f"[libvirt] {what}: {self.cpu_model.name or mode} is not to be had on this host with "
                f"{self.virt_type}: virsh domcapabilities --virttype {self.virt_type}"
            )

    def capacity(self) -> base.Capacity:
        """Return the CPUs this process may use, the host's memory, and the disk that holds the servers' files."""
        memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
        disk_gb = shutil.disk_usage(self._instances).total // storage.GIB
        return base.Capacity(len(self._shared_cpus), memory_mb, disk_gb, len(compute.dedicated(self._context.conf)))

    def numa(self) -> wire.NumaTopology | None:
        """Ask libvirt for the host's NUMA nodes."""
        nodes = capabilities.numa_nodes(
            self._connection.ask(lambda connection: connection.getCapabilities(), "tell NUMA nodes")
        )
        if not nodes:
            return None
        return numa.topology(nodes, shared=self._shared_cpus, dedicated=compute.dedicated(self._context.conf))

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
                self._virt_type = self._context.conf.libvirt.virt_type
                if self._virt_type == "auto":
                    probe = kvm.kvm_works()
                    self._virt_type = "kvm" if probe else "qemu"
                    LOG.info("Guests run with %s: %s", self._virt_type, probe.reason)
            return self._virt_type

    def cpus(self, assignment: wire.Assignment) -> Cpus:
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


def _cpu_flags() -> set[str]:
    try:
        match = re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text("ascii", "replace"), re.MULTILINE)
    except OSError:
        return set()
    return set(match.group(1).split()) if match else set()
