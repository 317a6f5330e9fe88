# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[image_cache]``: images that an agent keeps for the disks of its servers, by Nova's names."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "image_cache"

OPTS = [
    cfg.BoolOpt("remove_unused_base_images", default=True, help="Remove images that no server's disk stands on."),
    cfg.IntOpt(
        "remove_unused_original_minimum_age_seconds",
        default=24 * 3600,
        min=600,
        help="Seconds that nobody has to have used an image before it is removed.",
    ),
    cfg.IntOpt("manager_interval", default=2400, min=1, help="Seconds between two looks for such images."),
]
