# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[DEFAULT]``: what every process needs."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "DEFAULT"

OPTS = [
    cfg.StrOpt(
        "state_path",
        default="/var/lib/accelsched",
        help="Directory for what must outlive a restart: the host's identity, images, disks, consoles.",
    ),
]
