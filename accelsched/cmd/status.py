# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-status upgrade check``: is this deployment ready for this release?

Exit status as oslo.upgradecheck has it: 0 ready, 1 a warning, 2 a failure, 255 an error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_db import exception as db_exception
from sqlalchemy import func, select

from accelsched import errors, wire
from accelsched.cmd import process
from accelsched.compute.hosts import understands
from accelsched.db import migrations
from accelsched.db.compute import Host
from accelsched.db.engine import Database
from accelsched.scheduler import plugins

PROG = "accelsched-status"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``upgrade check``; return the exit status."""
    try:
        conf = process.read_options(
            PROG,
            argv,
            example=f"{PROG} --config-file /etc/accelsched/accelsched.conf upgrade check",
            extra=[cfg.SubCommandOpt("group", title="commands", handler=_add_commands)],
        )
        return _check(conf)
    except errors.ConfigurationError as exc:
        print(f"{PROG}: {exc}", file=sys.stderr)
        return 255


def _check(conf: cfg.ConfigOpts) -> int:
    worst = 0

    def say(name: str, status: int, text: str) -> None:
        nonlocal worst
        worst = max(worst, status)
        print(f"{('Success', 'Warning', 'Failure')[status]}: {name}: {text}")

    plugins.load(conf)
    say("scheduler plug-ins", 0, "all load")
    try:
        db = Database.from_conf(conf)
        current, newest = migrations.current(db), migrations.newest()
    except db_exception.DBConnectionError as exc:
        say("database", 2, f"does not answer: {str(exc).splitlines()[0]}")
        return worst
    if current != newest:
        say("schema", 2, f"is at {current or 'nothing'}, this release wants {newest}: run accelsched-manage db upgrade")
        return worst
    say("schema", 0, f"is at {current}")
    with db.reading() as session:
        hosts = session.scalar(select(func.count()).select_from(Host)) or 0
        versions = session.scalars(select(Host.rpc_version)).all()
    say("hosts", 0 if hosts else 1, f"{hosts} have reported" if hosts else "none has ever reported")
    old = sum(not understands(version, wire.AGENT_VERSION) for version in versions)
    say(
        "agents",
        1 if old else 0,
        f"{old} speak an RPC version before {wire.AGENT_VERSION} and refuse what came with it: upgrade them"
        if old
        else f"all speak RPC version {wire.AGENT_VERSION}",
    )
    return worst


def _add_commands(subparsers) -> None:  # type: ignore[no-untyped-def] # argparse's type is private
    upgrade = subparsers.add_parser("upgrade", help="checks around an upgrade", epilog=f"Example: {PROG} upgrade check")
    commands = upgrade.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say what stands in the way of this release")
