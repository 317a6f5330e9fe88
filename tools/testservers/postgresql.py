# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on loopback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import sqlalchemy
from stack import files
from stack.daemon import Daemon
from stack.errors import StackError

_SYSTEM = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
_OWN_PORT = 25432
_START_TIMEOUT_S = 60.0


class PostgreSQL:
    """The machine's server when it trusts loopback, else one of our own."""

    def __init__(self, state: Path) -> None:
        self._data = state / "postgresql"
        self._daemon = Daemon("postgresql", state)

    def start(self) -> str:
        """Return the URL of a server that answers as its superuser.

        :raises stack.errors.StackError: when there is none and none can be started
        """
        if answers(_SYSTEM):
            return _SYSTEM
        own = f"postgresql+psycopg2://postgres@127.0.0.1:{_OWN_PORT}/postgres"
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
        if programs is None:
            raise StackError("PostgreSQL is not installed: run tools/install-deps postgresql")
        if not (self._data / "PG_VERSION").exists():
            files.directory(self._data)
            subprocess.run(["chown", "postgres", self._data], check=True)
            subprocess.run(
                ["runuser", "-u", "postgres", "--", programs / "initdb", "-A", "trust", "-D", self._data],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        # Durability of test data is of no use to anybody; its loss on a crash would only lose the test.
        self._daemon.start(
            [
                "runuser",
                "-u",
                "postgres",
                "--",
                programs / "postgres",
                "-D",
                self._data,
                "-p",
                str(_OWN_PORT),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                f"unix_socket_directories={self._data}",
                "-c",
                "fsync=off",
            ]
        )
        self._daemon.wait_until(lambda: answers(own), _START_TIMEOUT_S)
        return own

    def stop(self) -> None:
        """Stop it if it was started here."""
        self._daemon.stop()


def answers(url: str) -> bool:
    """Tell whether a database server lets us in."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect():
            return True
    except sqlalchemy.exc.OperationalError:
        return False
    finally:
        engine.dispose()
