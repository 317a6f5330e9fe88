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
