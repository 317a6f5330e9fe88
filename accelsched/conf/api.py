# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[api]``: the HTTP service."""

from __future__ import annotations

import ipaddress

from oslo_config import cfg

from accelsched import errors

GROUP = "api"

OPTS = [
    cfg.StrOpt("bind_host", default="127.0.0.1", help="Address to listen on. Loopback unless you say otherwise."),
    cfg.PortOpt("bind_port", default=8790, help="Port to listen on."),
    cfg.IntOpt("workers", default=1, min=1, max=1024, help="Worker processes of accelsched-api."),
    cfg.IntOpt("threads", default=8, min=1, max=1024, help="Threads that answer requests, in each worker."),
    cfg.StrOpt(
        "auth_strategy",
        default="keystone",
        choices=[
            ("keystone", "tokens are checked with Keystone (keystonemiddleware)"),
            (
                "http_basic",
                "HTTP Basic against an Apache htpasswd file of bcrypt hashes; every user is an admin",
            ),
            ("noauth2", "no check at all: token and role headers are believed; for tests on loopback"),
        ],
        help="How callers are identified.",
    ),
    cfg.StrOpt("http_basic_auth_user_file", default="/etc/accelsched/htpasswd", help="The htpasswd file."),
    cfg.BoolOpt(
        "allow_public_noauth2",
        default=False,
        help="Let noauth2 or plain http_basic listen on an address that is not loopback. Whoever reaches the "
        "port then owns the fleet (noauth2) or can read passwords off the wire (http_basic).",
    ),
    cfg.IntOpt(
        "max_limit",
        default=1000,
        min=1,
        max=100000,
        help="Most items in one answer of a paged list (Compute API).",
    ),
    cfg.IntOpt(
        "max_request_body_bytes",
        default=16 * 1024 * 1024,
        min=1024,
        help="Largest request body that is read; a larger one is refused with 413.",
    ),
    cfg.BoolOpt(
        "enable_instance_password",
        default=True,
        help="Tell who creates or rebuilds a server a password (adminPass), made up unless it was given. A guest finds "
        "it on its config drive, if it looks for it.",
    ),
    cfg.IntOpt(
        "max_servers_per_request",
        default=10000,
        min=1,
        help="Largest max_count of one create request.",
    ),
]


def check(conf: cfg.ConfigOpts) -> None:
    """Refuse to serve the world without a proper identity check.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    if conf.api.auth_strategy == "keystone" or conf.api.allow_public_noauth2:
        return
    host = conf.api.bind_host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise errors.ConfigurationError(
            f"[api] auth_strategy: {conf.api.auth_strategy} refuses to listen on {host}, which is not loopback; "
            "use keystone, bind 127.0.0.1, or set [api] allow_public_noauth2 = true if you mean it"
        )
