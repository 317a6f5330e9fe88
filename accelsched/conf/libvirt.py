# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[libvirt]``: the libvirt virt driver."""

from __future__ import annotations

from oslo_config import cfg

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
