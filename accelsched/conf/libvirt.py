# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[libvirt]``: the libvirt virt driver."""

from __future__ import annotations

from collections.abc import Mapping

from oslo_config import cfg

from accelsched import errors

GROUP = "libvirt"

OPTS = [
    cfg.StrOpt("connection_uri", default="qemu:///system", help="libvirt's URI."),
    cfg.StrOpt(
        "virt_type",
        default="auto",
        choices=[
            ("auto", "kvm where a guest truly runs with it (probed, not assumed), else qemu"),
            ("kvm", "hardware virtualization"),
            ("qemu", "software emulation (TCG)"),
        ],
        help="How guests run.",
    ),
    cfg.StrOpt(
        "cpu_mode",
        choices=[
            ("host-passthrough", "this host's CPU itself; live migration needs hosts alike; not with TCG"),
            ("host-model", "the model nearest to this host's CPU, which libvirt chooses"),
            ("maximum", "all that can be virtualized or emulated here"),
            ("custom", "cpu_model"),
        ],
        help="The CPU that guests see. Without it host-passthrough, with TCG maximum.",
    ),
    cfg.StrOpt(
        "cpu_model",
        help="Name of a CPU model that this host can give its guests, of cpu_mode custom: virsh domcapabilities lists "
        "them. Servers move live between hosts of one model.",
    ),
    cfg.ListOpt(
        "cpu_model_extra_flags",
        default=[],
        help="CPU features that guests are to have beside those of the model, or, with a minus before them, not to "
        "have: pcid, -avx512f.",
    ),
    cfg.StrOpt(
        "network",
        help="Name of a libvirt network that is active on this host. Servers created with networks auto get an "
        "interface on it. Without it they get none.",
    ),
    cfg.StrOpt(
        "live_migration_uri",
        default="qemu+tls://%s/system",
        help="Where this host's libvirt finds another host's, to have a server go there while it runs; %s is the other "
        "host's live_migration_inbound_addr. qemu+tcp without authentication gives root on the host to whoever "
        "reaches it.",
    ),
    cfg.StrOpt(
        "live_migration_inbound_addr",
        help="Address of this host for servers that come while they run: of its libvirt, and of QEMU for memory and "
        "disks. Without it [agent] my_ip, without that the host's name.",
    ),
    cfg.BoolOpt(
        "live_migration_with_native_tls",
        default=False,
        help="Have QEMU encrypt memory and disks on their way; takes certificates for QEMU on both hosts.",
    ),
    cfg.IntOpt(
        "live_migration_bandwidth",
        default=0,
        min=0,
        help="Most that a live migration may send, MiB/s; 0 for as much as goes.",
    ),
    cfg.IntOpt(
        "live_migration_downtime",
        default=500,
        min=100,
        help="How long a guest without devices of the host may stand still at the end of its live migration, ms. For "
        "one with such devices that follows from what they are.",
    ),
    cfg.IntOpt(
        "live_migration_downtime_steps",
        default=10,
        min=1,
        help="In how many steps that is raised to live_migration_downtime.",
    ),
    cfg.IntOpt("live_migration_downtime_delay", default=10, min=1, help="Seconds between two of these steps."),
    cfg.IntOpt(
        "live_migration_completion_timeout",
        default=800,
        min=0,
        help="Most that a live migration may take, seconds for each GiB of memory and disk; 0 for as long as it takes.",
    ),
    cfg.StrOpt(
        "live_migration_timeout_action",
        default="abort",
        choices=[
            ("abort", "the server stays where it is"),
            ("force_complete", "its guest stands still until it is there"),
        ],
        help="What is done about a live migration that takes longer.",
    ),
    cfg.BoolOpt(
        "live_migration_permit_auto_converge",
        default=False,
        help="Slow a guest down that writes faster than its memory can be sent.",
    ),
    cfg.StrOpt(
        "kernel_args",
        default="console=ttyS0 panic=-1 no_timer_check",
        help="Kernel command line of images that carry kernel_id and no os_command_line of their own.",
    ),
]


def cpu_features(conf: cfg.ConfigOpts) -> Mapping[str, bool]:
    """Return ``cpu_model_extra_flags``: by name, whether guests are to have it."""
    return {flag.lstrip("+-").lower(): not flag.startswith("-") for flag in conf.libvirt.cpu_model_extra_flags}


def check(conf: cfg.ConfigOpts) -> None:
    """Check what the option types cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    if (conf.libvirt.cpu_mode == "custom") != bool(conf.libvirt.cpu_model):
        raise errors.ConfigurationError("[libvirt] cpu_model: goes with cpu_mode custom, and that needs it")
