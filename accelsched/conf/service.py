# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[DEFAULT]``: what every process needs."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "DEFAULT"

OPTS = [
    cfg.BoolOpt(
        "allow_resize_to_same_host",
        default=False,
        help="Let a server that is resized stay on its host where that has room for both sizes at once. With one host "
        "alone, no server can be resized without it.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/accelsched",
        help="Directory for what must outlive a restart: the host's identity, images, disks, consoles.",
    ),
]
