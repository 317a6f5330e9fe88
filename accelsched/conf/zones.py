# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[DEFAULT]``: availability zones."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "DEFAULT"

OPTS = [
    cfg.StrOpt(
        "default_availability_zone",
        default="nova",
        help="Zone of hosts that are in no aggregate with availability_zone in its metadata.",
    ),
    cfg.StrOpt(
        "default_schedule_zone",
        help="Zone of servers whose users named none. Without it they may go to any, and be moved between zones.",
    ),
]
