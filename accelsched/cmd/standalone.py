# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-standalone``: API, scheduler and agent in one process, on SQLite and in-process messaging."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from wsgiref.types import WSGIApplication

from oslo_config import cfg
from oslo_log import log

from accelsched import errors, rpc
from accelsched.api import app
from accelsched.api.services import Services
from accelsched.cmd import process
from accelsched.cmd.control_plane import ControlPlane
from accelsched.db import migrations
from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet

if TYPE_CHECKING:
    from waitress.server import BaseWSGIServer

PROG = "accelsched-standalone"
LOG = log.getLogger(__name__)

_OPTIONS = [
    cfg.StrOpt("state-dir", metavar="DIR", help="Directory for the database, images and disks; [DEFAULT] state_path."),
    cfg.StrOpt("bind", metavar="HOST:PORT", help="Address to listen on; [api] bind_host and bind_port."),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    try:
        conf = process.read_options(
            PROG,
            argv,
            example=f"{PROG} --config-file accelsched.conf --state-dir /var/lib/accelsched --bind 127.0.0.1:8790",
            extra=_OPTIONS,
            prepare=_prepare,
        )
    except errors.ConfigurationError as exc:
        return process.fail(PROG, str(exc))
    return process.run(PROG, lambda: _build(conf))


def _prepare(conf: cfg.ConfigOpts) -> None:
    if conf.state_dir:
        conf.set_override("state_path", conf.state_dir)
    if conf.bind:
        host, colon, port = conf.bind.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise errors.ConfigurationError(f"--bind: {conf.bind!r} is not HOST:PORT, for example 127.0.0.1:8790")
        conf.set_override("bind_host", host.strip("[]"), group="api")
        conf.set_override("bind_port", int(port), group="api")
    if conf.agent.user is not None and "agent" in conf.standalone.services:
        raise errors.ConfigurationError(
            f"[agent] user: {PROG} does not obey it; run accelsched-agent as a process of its own and leave agent out "
            "of [standalone] services, or unset it"
        )
    state = pathlib.Path(conf.state_path)
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise errors.ConfigurationError(f"[DEFAULT] state_path: {exc}") from exc
    conf.set_default("connection", f"sqlite:///{state.absolute() / 'accelsched.sqlite'}", group="database")
    conf.set_default("transport_url", "fake://")


def _build(conf: cfg.ConfigOpts) -> list[process.Part]:
    services = set(conf.standalone.services)
    transport = rpc.transport(conf)
    parts: list[process.Part] = []
    if services & {"api", "scheduler"}:
        db = Database.from_conf(conf)
        migrations.upgrade(db)
        fleet = Fleet(db)
        fleet.warm_up()
        if "scheduler" in services:
            parts.append(ControlPlane(conf, db, fleet, transport))
        if "api" in services:
            application = app.create(Services.over(conf, db, fleet, transport))
            parts.append(_WebServer(conf, application))
    if "agent" in services:
        # Here, and not above: a control plane without an agent needs nothing that an agent needs.
        from accelsched.agent.manager import Agent  # noqa: PLC0415

        parts.append(Agent(conf, transport))
    return parts


class _WebServer:
    """waitress in a thread: sound against slow and malformed clients, no processes of its own."""

    def __init__(self, conf: cfg.ConfigOpts, application: WSGIApplication) -> None:
        """Take the port now, so that a taken one is known before anything runs.

        :raises accelsched.errors.ConfigurationError: when the address cannot be listened on, or waitress is missing
        """
        try:
            from waitress.server import create_server  # noqa: PLC0415
        except ImportError as exc:
            raise errors.ConfigurationError(
                "[standalone] services: api needs waitress; install accelsched[standalone]"
            ) from exc
        host, port = conf.api.bind_host, conf.api.bind_port
        try:
            self._server: BaseWSGIServer = create_server(
                application,
                host=host,
                port=port,
                threads=conf.api.threads,
                ident=None,
                # Beyond our own bound, which answers in the API's form; beyond this one the connection is cut.
                max_request_body_size=4 * conf.api.max_request_body_bytes,
                clear_untrusted_proxy_headers=True,
            )
        except OSError as exc:
            raise errors.ConfigurationError(f"[api] bind_host, bind_port: {host}:{port}: {exc.strerror}") from exc
        self._thread = threading.Thread(target=self._server.run, name="api", daemon=True)

    def start(self) -> None:
        """Answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests that were taken, take no more."""
        self._server.close()
        self._server.task_dispatcher.shutdown(cancel_pending=False, timeout=10)
