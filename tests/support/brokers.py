# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ for tests: virtual hosts of the one that this machine runs, where what is in one is no other test's; or a
node of the test's own, which it may kill.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import patience
from stack import http

_URL = os.environ.get("ACCELSCHED_TEST_RABBITMQ", "rabbit://guest:guest@127.0.0.1:5672/")
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


@contextlib.contextmanager
def fresh() -> Iterator[str]:
    """Make an empty virtual host and delete it afterwards.

    :returns: its transport URL
    """
    node = os.environ.get("ACCELSCHED_TEST_RABBITMQ_NODE")
    # RabbitMQ's management interface is a plug-in; its command line is always there.
    ctl = ["rabbitmqctl", "--quiet", *(["-n", node] if node else [])]
    name = f"accelsched_test_{uuid.uuid4().hex[:12]}"
    subprocess.run([*ctl, "add_vhost", name], check=True)
    try:
        subprocess.run([*ctl, "set_permissions", "-p", name, "guest", ".*", ".*", ".*"], check=True)
        yield f"{_URL.rstrip('/')}/{name}"
    finally:
        subprocess.run([*ctl, "delete_vhost", name], check=True)


class Node:
    """A RabbitMQ node on loopback that belongs to a test: its queues and connections are nobody else's."""

    def __init__(self) -> None:
        # RabbitMQ runs as a user of its own, who gets nowhere below pytest's folders.
        self._directory = Path(tempfile.mkdtemp(prefix="accelsched-rabbitmq-", dir="/var/tmp"))
        shutil.chown(self._directory, "rabbitmq", "rabbitmq")
        self._port = http.free_port()
        self._environment = {
            **os.environ,
            "HOME": str(self._directory),
            "RABBITMQ_NODENAME": f"{self._directory.name}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(http.free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self._directory / "data"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(self._directory / "none.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._directory / "none.env"),
        }
        self.url = f"rabbit://guest:guest@127.0.0.1:{self._port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it takes connections then."""
        command = ["setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups", _SERVER]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
            )
        patience.wait(self._answers, told=lambda: (self._directory / "log").read_text()[-4000:])

    def _answers(self) -> bool:
        """Tell whether it takes connections: it closes those that do not speak its protocol, after saying which."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=2) as connection:
                connection.sendall(bytes(8))
                return connection.recv(4) == b"AMQP"
        except OSError:
            return False

    def restart(self) -> None:
        """Kill it with SIGKILL and start it again: every connection and every message in a queue is lost."""
        self._kill()
        self.start()

    def _kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill it and remove what it kept."""
        self._kill()
        shutil.rmtree(self._directory)


@contextlib.contextmanager
def own() -> Iterator[Node]:
    """Give a node of the test's own."""
    node = Node()
    try:
        node.start()
        yield node
    finally:
        node.close()
