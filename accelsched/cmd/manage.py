# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-manage``: the database's schema."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg
from oslo_db import exception as db_exception

from accelsched import errors
from accelsched.cmd import process
from accelsched.db import migrations
from accelsched.db.engine import Database

PROG = "accelsched-manage"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``db upgrade`` or ``db version``; return the exit status."""
    try:
        conf = process.read_options(
            PROG,
            argv,
            example=f"{PROG} --config-file /etc/accelsched/accelsched.conf db upgrade",
            extra=[cfg.SubCommandOpt("group", title="commands", handler=_add_commands)],
        )
        db = Database.from_conf(conf)
        if conf.group.command == "upgrade":
            before = migrations.current(db)
            migrations.upgrade(db)
            after = migrations.current(db)
            print(f"{before or 'empty'} -> {after}" if before != after else f"{after}: nothing to do")
        else:
            print(migrations.current(db) or "empty")
    except errors.ConfigurationError as exc:
        return process.fail(PROG, str(exc))
    except db_exception.DBConnectionError as exc:
        return process.fail(PROG, f"[database] connection: the database does not answer: {str(exc).splitlines()[0]}")
    return 0


def _add_commands(subparsers) -> None:  # type: ignore[no-untyped-def] # argparse's type is private
    db = subparsers.add_parser("db", help="the database's schema", epilog=f"Example: {PROG} db upgrade")
    commands = db.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade", help="bring the schema to this release's; safe to repeat")
    commands.add_parser("version", help="print the revision the schema is at")
