# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[standalone]``: everything in one process."""

from __future__ import annotations

from oslo_config import cfg, types

GROUP = "standalone"

OPTS = [
    cfg.Opt(
        "services",
        type=types.List(item_type=types.String(choices=["api", "scheduler", "agent"])),
        default=["api", "scheduler", "agent"],
        help="Which parts run in this process.",
    ),
]
