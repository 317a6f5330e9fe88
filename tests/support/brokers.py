# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Virtual hosts of the real RabbitMQ of this machine: what is in one is no other test's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator

_URL = os.environ.get("ACCELSCHED_TEST_RABBITMQ", "rabbit://guest:guest@127.0.0.1:5672/")


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
