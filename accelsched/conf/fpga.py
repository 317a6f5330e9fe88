# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[fpga]``: how an agent programs FPGA regions."""

from __future__ import annotations

from pathlib import Path

from oslo_config import cfg

from accelsched import errors
from accelsched.bitstreams import uuid_of

GROUP = "fpga"

OPTS = [
    cfg.StrOpt("opae_path", default="/usr/bin", help="Directory of OPAE's executables (device driver dfl)."),
    cfg.StrOpt(
        "opae_tool",
        default="fpgaconf",
        choices=["fpgaconf", "fpgasupdate"],
        help="What programs a region of an Intel card: fpgaconf, or fpgasupdate for platforms that want it.",
    ),
    cfg.StrOpt(
        "xrt_path",
        default="/opt/xilinx/xrt/bin",
        help="Directory of the executables of Xilinx' run time, XRT (device driver xilinx).",
    ),
    cfg.IntOpt(
        "program_timeout",
        default=300,
        min=1,
        max=3600,
        help="Seconds after which an executable that programs a region is stopped, and the programming has failed.",
    ),
    cfg.IntOpt(
        "examine_timeout", default=30, min=1, max=600, help="The same for executables that only look at a card."
    ),
    cfg.IntOpt(
        "examine_interval",
        default=300,
        min=1,
        help="Seconds for which what an executable said of a card is believed; it is asked anew after programming too.",
    ),
    cfg.IntOpt(
        "settle_timeout",
        default=10,
        min=0,
        max=300,
        help="Seconds that a card may take to show itself in sysfs again after a server gave it back.",
    ),
    cfg.IntOpt("max_bitstream_bytes", default=1 << 29, min=1, help="Largest bitstream that is downloaded, bytes."),
    cfg.DictOpt(
        "blank_bitstreams",
        default={},
        help="What a region is programmed with when a server gives it back, by the region's interface id: an image id, "
        "or an absolute path on this host. Regions with another interface are not scrubbed.",
    ),
]


def check(conf: cfg.ConfigOpts) -> None:
    """Check what the option types cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    for option in ("opae_path", "xrt_path"):
        if not Path(conf.fpga[option]).is_absolute():
            raise errors.ConfigurationError(f"[fpga] {option}: {conf.fpga[option]!r} is not an absolute path")
    for interface_id, blank in conf.fpga.blank_bitstreams.items():
        if uuid_of(interface_id) is None:
            raise errors.ConfigurationError(f"[fpga] blank_bitstreams: {interface_id!r} is not a UUID")
        if uuid_of(blank) is None and not Path(blank).is_absolute():
            raise errors.ConfigurationError(
                f"[fpga] blank_bitstreams: {blank!r} is neither the UUID of an image nor an absolute path"
            )


def blank_of(conf: cfg.ConfigOpts, interface_id: str) -> str | None:
    """Return what regions with an interface are scrubbed with; None when they are not."""
    blanks = {uuid_of(key): value for key, value in conf.fpga.blank_bitstreams.items()}
    found: str | None = blanks.get(interface_id)
    return found
