# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring Glance's database up to date and serve it: ``glance_service.py BIND CONFIG_DIR``."""

from __future__ import annotations

import os
import sys
from typing import Any

import manage
import wsgi_server
from glance.cmd import manage as glance_manage


def _db_sync(config_dir: str) -> None:
    sys.argv = ["glance-manage", "--config-file", f"{config_dir}/glance-api.conf", "db", "sync"]
    sys.exit(glance_manage.main())


def _application() -> Any:
    sys.argv = ["glance-api"]
    from glance.wsgi import api  # noqa: PLC0415 - importing it makes the application

    return api.application


def main(bind: str, config_dir: str) -> None:
    """Prepare and serve."""
    os.umask(0o077)
    os.environ["OS_GLANCE_CONFIG_DIR"] = config_dir
    manage.in_child("glance-manage db sync", lambda: _db_sync(config_dir))
    wsgi_server.serve(bind, _application)


if __name__ == "__main__":
    main(*sys.argv[1:])
