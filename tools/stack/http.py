# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Small questions over HTTP to services on loopback."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

# Loopback is never reached through a proxy, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Return whether a GET gets an answer that is not a server's error."""
    try:
        with _opener.open(url, timeout=timeout_s) as response:
            return bool(response.status < 500)
    except urllib.error.HTTPError as exc:
        return exc.code < 500
    except OSError:
        return False


def port_is_taken(port: int) -> bool:
    """Return whether something listens on the loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
