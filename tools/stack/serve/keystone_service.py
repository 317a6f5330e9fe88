# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring Keystone's database up to date, bootstrap it, serve it: ``keystone_service.py BIND CONFIG_DIR URL PASSWORDS``.

Every part of it can be repeated, so it is done at each start.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any

import manage
import wsgi_server
from keystone.cmd import cli


def _keystone_manage(config_dir: str, *arguments: str) -> None:
    argv = ["keystone-manage", "--config-file", f"{config_dir}/keystone.conf", *arguments]
    manage.in_child(f"keystone-manage {arguments[0]}", lambda: cli.main(argv))


def _application() -> Any:
    sys.argv = ["keystone"]  # Keystone reads the command line, which is ours
    from keystone.wsgi import api  # noqa: PLC0415 - importing it makes the application

    return api.application


def main(bind: str, config_dir: str, url: str, passwords: str) -> None:
    """Prepare and serve."""
    os.umask(0o077)
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = config_dir
    owner = ["--keystone-user", pwd.getpwuid(os.getuid()).pw_name]
    owner += ["--keystone-group", grp.getgrgid(os.getgid()).gr_name]
    _keystone_manage(config_dir, "db_sync")
    _keystone_manage(config_dir, "fernet_setup", *owner)
    _keystone_manage(config_dir, "credential_setup", *owner)
    # By the environment of the fork alone: a command line can be read by everybody.
    os.environ["OS_BOOTSTRAP_PASSWORD"] = json.loads(Path(passwords).read_text())["admin"]
    urls = [word for kind in ("public", "internal", "admin") for word in (f"--bootstrap-{kind}-url", url)]
    _keystone_manage(config_dir, "bootstrap", "--bootstrap-region-id", "RegionOne", *urls)
    del os.environ["OS_BOOTSTRAP_PASSWORD"]
    wsgi_server.serve(bind, _application)


if __name__ == "__main__":
    main(*sys.argv[1:])
