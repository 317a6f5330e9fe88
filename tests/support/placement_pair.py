# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""OpenStack Placement and ours side by side, on SQLite, both empty."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import placement_peer
from deployments import Service, answers
from placement_exchange import Client


@contextlib.contextmanager
def running(directory: Path) -> Iterator[tuple[Client, Client]]:
    """Run both and give a client of each, Placement's first."""
    port = placement_peer.free_port()
    url = f"http://127.0.0.1:{port}"
    (directory / "peer").mkdir()
    with placement_peer.running(directory / "peer") as peer:
        ours = Service(
            "accelsched-standalone",
            directory / "ours",
            {
                "standalone": {"services": "api"},
                "api": {"auth_strategy": "noauth2"},
                "database": {"connection": f"sqlite:///{directory}/ours/accelsched.db"},
            },
            ["--bind", f"127.0.0.1:{port}", "--state-dir", str(directory / "ours")],
        )
        try:
            ours.wait_for(lambda: answers(url + "/healthcheck"))
            yield Client(peer), Client(url + "/placement")
        finally:
            ours.stop()
