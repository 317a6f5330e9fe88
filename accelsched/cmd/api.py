# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-api``: the API alone, in as many worker processes as ``[api] workers`` says, under gunicorn."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any
from wsgiref.types import WSGIApplication

from oslo_config import cfg

from accelsched import errors
from accelsched.cmd import process

PROG = "accelsched-api"
_MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    try:
        conf = process.read_options(PROG, argv, example=f"{PROG} --config-file /etc/accelsched/accelsched.conf")
        server = _gunicorn(conf)
    except errors.ConfigurationError as exc:
        return process.fail(PROG, str(exc))
    if conf.api.workers == 1 or _MULTIPROC in os.environ:
        return _serve(server)
    # Each worker writes its counts to files here, and each can show the sum. Before any import of prometheus_client.
    directory = tempfile.mkdtemp(prefix="accelsched-metrics-")
    os.environ[_MULTIPROC] = directory
    try:
        return _serve(server)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _serve(server: Any) -> int:
    try:
        server.run()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def _gunicorn(conf: cfg.ConfigOpts) -> Any:
    try:
        from gunicorn.app.base import BaseApplication  # noqa: PLC0415
    except ImportError as exc:
        raise errors.ConfigurationError("accelsched-api needs gunicorn; install accelsched[api]") from exc

    host = f"[{conf.api.bind_host}]" if ":" in conf.api.bind_host else conf.api.bind_host

    class Server(BaseApplication):
        """gunicorn, with our options instead of its own."""

        def load_config(self) -> None:
            settings = {
                "bind": f"{host}:{conf.api.bind_port}",
                "workers": conf.api.workers,
                "worker_class": "gthread",
                "threads": conf.api.threads,
                "proc_name": PROG,
                "graceful_timeout": 30,
                # Workers answer from threads; this bounds how long one may be stuck altogether.
                "timeout": 120,
                "child_exit": _child_exit,
                "accesslog": None,
                # A socket in the home directory that several instances would fight over.
                "control_socket_disable": True,
            }
            for name, value in settings.items():
                if name in self.cfg.settings:  # older gunicorns know fewer
                    self.cfg.set(name, value)

        def load(self) -> WSGIApplication:
            # In each worker, after the fork: connections and threads do not survive one.
            from accelsched.api import wsgi  # noqa: PLC0415

            return wsgi.create(conf)

    _check(conf)
    return Server(prog=PROG)


def _check(conf: cfg.ConfigOpts) -> None:
    """Fail here and now, with one line, rather than in each worker.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    from accelsched.db import migrations  # noqa: PLC0415
    from accelsched.db.engine import Database  # noqa: PLC0415

    db = Database.from_conf(conf)
    try:
        migrations.require_current(db)
    finally:
        db.dispose()


def _child_exit(_server: Any, worker: Any) -> None:
    if _MULTIPROC in os.environ:
        from prometheus_client import multiprocess  # noqa: PLC0415

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
