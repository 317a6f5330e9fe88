# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ on loopback: the one that runs, else one started for as long as it is needed."""

from __future__ import annotations

import functools
import socket
import subprocess
from pathlib import Path

from stack import http
from stack.daemon import Daemon
from stack.errors import StackError

PORT = 5672
_START_TIMEOUT_S = 90.0

# Node, its port mapper and the link between nodes: RabbitMQ listens to the world unless told otherwise.
_LOOPBACK = {
    "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
    "RABBITMQ_NODE_PORT": str(PORT),
    "RABBITMQ_NODENAME": "rabbit@localhost",
    "ERL_EPMD_ADDRESS": "127.0.0.1",
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
}


def url(host: str, virtual_host: str) -> str:
    """Return the ``transport_url`` of a virtual host."""
    return f"rabbit://guest:guest@{host}:{PORT}/{virtual_host}"


class RabbitMQ:
    """The server.

    :param state_dir: its pid file and log, when it is started here
    """

    def __init__(self, state_dir: Path) -> None:
        self._daemon = Daemon("rabbitmq", state_dir)

    def start(self) -> None:
        """Start it unless somebody did.

        :raises stack.errors.StackError: when it does not come up
        """
        if not http.port_is_taken(PORT):
            self._daemon.start(["rabbitmq-server"], environment=_LOOPBACK)
            self._daemon.wait_until(lambda: http.port_is_taken(PORT), _START_TIMEOUT_S)
            _control("await_startup", on=_LOOPBACK["RABBITMQ_NODENAME"])

    def stop(self) -> None:
        """Stop it if it was started here."""
        if self._daemon.pid() is not None:
            # The daemon is Debian's script, which hands no signal on to the server below it.
            _control("shutdown")
            self._daemon.stop()

    def make_virtual_host(self, name: str) -> None:
        """Make a virtual host of our own, so that no other program's messages are ours."""
        _control("add_vhost", name)
        _control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")

    def delete_virtual_host(self, name: str) -> None:
        """Delete a virtual host with all its queues, if there is one."""
        if name in _control("list_vhosts", "name").splitlines():
            _control("delete_vhost", name)


@functools.cache
def node() -> str:
    """Return the name of the node that runs: ours, or the one that its package starts.

    :raises stack.errors.StackError: when neither answers
    """
    names = (_LOOPBACK["RABBITMQ_NODENAME"], f"rabbit@{socket.gethostname().partition('.')[0]}")
    for name in names:
        if _rabbitmqctl(name, "ping").returncode == 0:
            return name
    raise StackError(f"port {PORT} is taken, but no RabbitMQ node answers to {' or '.join(names)}")


def _control(*command: str, on: str | None = None) -> str:
    done = _rabbitmqctl(on or node(), *command)
    if done.returncode != 0:
        raise StackError(f"rabbitmqctl {' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _rabbitmqctl(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["rabbitmqctl", "--quiet", "-n", name, *command], check=False, capture_output=True, text=True)
