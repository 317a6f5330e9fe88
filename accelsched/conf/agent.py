# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[agent]``: the compute agent."""

from __future__ import annotations

import re
import socket

from oslo_config import cfg

from accelsched import errors

GROUP = "agent"

OPTS = [
    cfg.HostAddressOpt(
        "my_ip",
        help="Address of this host, as hypervisor show and SimpleCIDRAffinityFilter have it. Not set: the one that it "
        "has on the way to its default route, if it has one.",
    ),
    cfg.StrOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<hostname>",
        help="Name of this host in every API; must be unique in the fleet.",
    ),
    cfg.StrOpt(
        "user",
        help="User that accelsched-agent becomes when root starts it. A helper is left behind, which carries out the "
        "few things that take root. The user must own [DEFAULT] state_path, and be in libvirt's group. Not set: it "
        "stays root. accelsched-standalone has no such helper, and does not start with it unless its agent is left "
        "out.",
    ),
    cfg.StrOpt(
        "virt_driver",
        default="libvirt",
        help="Driver that runs servers (entry points accelsched.agent.virt): libvirt, or simulated.",
    ),
    cfg.ListOpt(
        "device_drivers",
        default=["mdev", "vfio", "pci"],
        help="Drivers that hand out devices (entry points accelsched.agent.devices): mdev, vfio, pci, simulated.",
    ),
    cfg.FloatOpt(
        "report_interval",
        default=10.0,
        min=0.1,
        help="Seconds between heartbeats; devices are looked at anew as often.",
    ),
    cfg.FloatOpt(
        "sync_interval",
        default=30.0,
        min=0.1,
        help="Seconds between comparisons of what runs here with what is wanted; messages only make it sooner.",
    ),
    cfg.IntOpt("build_threads", default=4, min=1, max=256, help="Servers worked on at the same time."),
    cfg.IntOpt(
        "shutdown_timeout",
        default=60,
        min=0,
        max=3600,
        help="Seconds that a guest is given to shut down before it is switched off; an image's os_shutdown_timeout "
        "property wins.",
    ),
    cfg.IntOpt(
        "detach_timeout",
        default=60,
        min=1,
        max=3600,
        help="Seconds that a guest is given to let go of an accelerator that is to be detached; else it keeps it.",
    ),
    cfg.BoolOpt(
        "resume_guests_state_on_host_boot",
        default=True,
        help="Start the servers again that ran when the host was rebooted; else they stay SHUTOFF.",
    ),
    cfg.IntOpt("reserved_host_memory_mb", default=512, min=0, help="Memory kept back for the host itself, MiB."),
    cfg.IntOpt("reserved_host_disk_mb", default=0, min=0, help="Disk kept back for the host itself, MiB."),
    cfg.IntOpt("reserved_host_cpus", default=0, min=0, help="CPUs kept back for the host itself."),
    cfg.FloatOpt("cpu_allocation_ratio", default=4.0, min=0.001, help="Virtual CPUs sold for each CPU."),
    cfg.FloatOpt("ram_allocation_ratio", default=1.0, min=0.001, help="Memory sold for each byte there is."),
    cfg.FloatOpt("disk_allocation_ratio", default=1.0, min=0.001, help="Disk sold for each byte there is."),
    cfg.IntOpt(
        "console_bytes",
        default=1024 * 1024,
        min=4096,
        help="Most bytes of a serial console that are shown.",
    ),
    cfg.IntOpt("simulated_vcpus", default=64, min=1, help="CPUs of each simulated host (virt_driver = simulated)."),
    cfg.IntOpt("simulated_memory_mb", default=512 * 1024, min=1, help="Memory of each simulated host, MiB."),
    cfg.IntOpt("simulated_disk_gb", default=4096, min=1, help="Disk of each simulated host, GiB."),
    cfg.IntOpt(
        "simulated_numa_nodes",
        default=0,
        min=0,
        max=16,
        help="NUMA nodes of each simulated host, over which its CPUs, memory and devices are spread; 0 tells of none.",
    ),
    cfg.IntOpt("simulated_threads_per_core", default=1, min=1, max=8, help="Threads of each core of a simulated host."),
    cfg.IntOpt(
        "simulated_huge_pages",
        default=0,
        min=0,
        help="Pages of 2 MiB of each NUMA node of a simulated host, part of its memory.",
    ),
    cfg.FloatOpt("simulated_build_seconds", default=0.0, min=0.0, help="How long a simulated build takes."),
    cfg.FloatOpt(
        "simulated_failure_rate", default=0.0, min=0.0, max=1.0, help="Part of the simulated builds that fail."
    ),
]


def check(conf: cfg.ConfigOpts) -> None:
    """Refuse a host name that cannot be part of a provider's or a file's name.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", conf.agent.host):
        raise errors.ConfigurationError(
            f"[agent] host: {conf.agent.host!r} must be 1 to 200 letters, digits, '.', '_' or '-'"
        )
    options = conf.agent
    if options.simulated_numa_nodes:
        if options.simulated_vcpus % (options.simulated_numa_nodes * options.simulated_threads_per_core):
            raise errors.ConfigurationError(
                f"[agent] simulated_numa_nodes: {options.simulated_vcpus} CPUs cannot be divided evenly into "
                f"{options.simulated_numa_nodes} nodes of cores with {options.simulated_threads_per_core} threads"
            )
        if 2 * options.simulated_huge_pages > options.simulated_memory_mb // options.simulated_numa_nodes:
            raise errors.ConfigurationError("[agent] simulated_huge_pages: more than a node's memory")
