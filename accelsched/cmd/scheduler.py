# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-scheduler``: the control plane without HTTP, as a process of its own. Run as many as you like."""

from __future__ import annotations

from collections.abc import Sequence

from accelsched import errors, rpc
from accelsched.cmd import process
from accelsched.cmd.control_plane import ControlPlane
from accelsched.db import migrations
from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet

PROG = "accelsched-scheduler"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scheduler until SIGTERM or SIGINT; return the exit status."""
    try:
        conf = process.read_options(PROG, argv, example=f"{PROG} --config-file /etc/accelsched/accelsched.conf")
    except errors.ConfigurationError as exc:
        return process.fail(PROG, str(exc))

    def build() -> list[process.Part]:
        db = Database.from_conf(conf)
        migrations.require_current(db)
        return [ControlPlane(conf, db, Fleet(db), rpc.transport(conf))]

    return process.run(PROG, build)
