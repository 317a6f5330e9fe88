# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""MariaDB on loopback."""

from __future__ import annotations

import subprocess
from pathlib import Path

from stack import files
from stack.daemon import Daemon

from testservers.postgresql import answers

_SYSTEM = "mysql+pymysql://root@127.0.0.1:3306/"
_OWN_PORT = 23306
_START_TIMEOUT_S = 60.0


class MariaDB:
    """The machine's server when its root has no password on loopback, else one of our own."""

    def __init__(self, state: Path) -> None:
        self._data = state / "mariadb"
        self._daemon = Daemon("mariadb", state)

    def start(self) -> str:
        """Return the URL of a server that answers as its superuser.

        :raises stack.errors.StackError: when there is none and none can be started
        """
        if answers(_SYSTEM):
            return _SYSTEM
        own = f"mysql+pymysql://root@127.0.0.1:{_OWN_PORT}/"
        if not (self._data / "mysql").exists():
            files.directory(self._data)
            subprocess.run(["chown", "mysql", self._data], check=True)
            subprocess.run(
                [
                    "mariadb-install-db",
                    "--no-defaults",
                    "--user=mysql",
                    f"--datadir={self._data}",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        self._daemon.start(
            [
                "mariadbd",
                "--no-defaults",
                "--user=mysql",
                f"--datadir={self._data}",
                "--bind-address=127.0.0.1",
                f"--port={_OWN_PORT}",
                f"--socket={self._data / 'socket'}",
                f"--pid-file={self._data / 'pid'}",
                "--innodb-flush-log-at-trx-commit=0",
            ]
        )
        self._daemon.wait_until(lambda: answers(own), _START_TIMEOUT_S)
        return own

    def stop(self) -> None:
        """Stop it if it was started here."""
        self._daemon.stop()
