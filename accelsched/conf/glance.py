# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[glance]``: where images are; keystoneauth's options (auth_url, username, endpoint_override ...) apply too."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "glance"

OPTS = [
    cfg.IntOpt(
        "max_image_bytes",
        default=1 << 40,
        min=1,
        help="Largest image an agent downloads, bytes; a larger one fails the build.",
    ),
    cfg.IntOpt("download_attempts", default=3, min=1, max=100, help="Times a download that broke is tried in all."),
    cfg.FloatOpt(
        "read_timeout",
        default=60.0,
        min=1.0,
        help="Seconds of silence after which a request to Glance is given up.",
    ),
]
