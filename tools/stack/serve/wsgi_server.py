# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Serve a WSGI application with gunicorn's threads. Runs in the services' environment, not in the project's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, bind: str, load: Callable[[], Any]) -> None:
        self._bind = bind
        self._load_application = load
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": [self._bind],
            "workers": 1,
            "worker_class": "gthread",
            "threads": 8,
            "timeout": 120,
            "graceful_timeout": 10,
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._load_application()


def serve(bind: str, load: Callable[[], Any]) -> None:
    """Serve until SIGTERM.

    :param bind: HOST:PORT
    :param load: makes the application, in the worker process
    """
    _Application(bind, load).run()
