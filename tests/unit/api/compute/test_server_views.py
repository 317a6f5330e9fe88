# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the answer to a rebuild shows of a server, by microversion."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched.api.compute import server_views
from accelsched.api.compute.microversion import Version
from accelsched.compute.servers import Shown
from accelsched.db.base import utcnow
from accelsched.db.compute import Server

FLAVOR = {"id": "f", "name": "f", "vcpus": 1, "ram_mb": 64, "disk_gb": 1, "extra_specs": {}}


def rebuilt(minor: int) -> dict[str, Any]:
    server = Server(
        uuid="u",
        name="one",
        project_id="p",
        user_id="u",
        state="active",
        desired="active",
        task="rebuilding",
        flavor=FLAVOR,
        metadata_={},
        devices=[],
        key_name="key",
        user_data="aGk=",
        created_at=utcnow(),
        updated_at=utcnow(),
    )
    reader = server_views.Reader(
        "/v2.1",
        Version(2, minor),
        extended=True,
        host_status=True,
        extra_specs=True,
        service_down_s=60,
        default_zone="nova",
    )
    return server_views.changed(Shown(server, "r-1", None, None), reader, groups=["g"], rebuilt=True)


@pytest.mark.parametrize(
    ("key", "value", "since"),
    [
        ("key_name", "key", 54),
        ("user_data", "aGk=", 57),
        ("server_groups", ["g"], 71),
        ("OS-EXT-STS:vm_state", "active", 75),
        ("OS-EXT-SRV-ATTR:user_data", "aGk=", 75),
    ],
)
def test_a_rebuilt_server_is_shown_with_more_from_version_to_version(key, value, since):
    assert key not in rebuilt(since - 1)
    assert rebuilt(since)[key] == value
