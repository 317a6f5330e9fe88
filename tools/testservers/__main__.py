# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``python -m testservers start|stop DIR``: start prints shell variables that tell the tests where the servers are."""

from __future__ import annotations

import sys
from pathlib import Path

from labvm.rabbitmq import RabbitMQ, node
from stack.errors import StackError

from testservers.mariadb import MariaDB
from testservers.postgresql import PostgreSQL


def main(argv: list[str]) -> int:
    """Start or stop the servers; return the exit status."""
    if len(argv) != 2 or argv[0] not in ("start", "stop"):
        print(f"usage: {__doc__}", file=sys.stderr)
        return 2
    state = Path(argv[1])
    postgresql, mariadb, rabbitmq = PostgreSQL(state), MariaDB(state), RabbitMQ(state)
    try:
        if argv[0] == "stop":
            for server in (postgresql, mariadb, rabbitmq):
                server.stop()
            return 0
        print(f"export ACCELSCHED_TEST_POSTGRESQL='{postgresql.start()}'")
        print(f"export ACCELSCHED_TEST_MARIADB='{mariadb.start()}'")
        rabbitmq.start()
        print(f"export ACCELSCHED_TEST_RABBITMQ_NODE='{node()}'")
    except StackError as exc:
        print(f"testservers: {exc}", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
