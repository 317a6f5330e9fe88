# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who this node is: a uuid that outlives restarts, and a lock so that one state directory has one agent."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path
from typing import Self

from accelsched import errors
from accelsched.agent import files

_NODE_FILE = "node_uuid"
_CONTROL_PLANE_FILE = "control_plane"
_LOCK_FILE = "agent.lock"


class Identity:
    """The node's identity, held exclusively from :meth:`claim` to :meth:`release`."""

    def __init__(self, node_uuid: str, lock: int, state_path: Path) -> None:
        self.node_uuid = node_uuid
        self._lock = lock
        self._control_plane = state_path / _CONTROL_PLANE_FILE

    @classmethod
    def claim(cls, state_path: Path) -> Self:
        """Read the identity kept in ``state_path``; make one at the first start.

        :raises accelsched.errors.ConfigurationError: when the directory cannot be used, another agent uses it, or
            the file holds something else than a uuid (a new identity would orphan every server of this node)
        """
        try:
            state_path.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock = os.open(state_path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise errors.ConfigurationError(f"[DEFAULT] state_path: {exc}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(_node_uuid(state_path / _NODE_FILE), lock, state_path)
        except BlockingIOError as exc:
            os.close(lock)
            raise errors.ConfigurationError(f"[DEFAULT] state_path: another agent is using {state_path}") from exc
        except BaseException:
            os.close(lock)
            raise

    def release(self) -> None:
        """Let another agent use the state directory."""
        os.close(self._lock)

    def control_plane(self) -> str | None:
        """Return the control plane that this node belongs to; None before the first one accepted it.

        What one control plane asked for, another one knows nothing of: taking the other's word, the agent would remove
        it all. So it says whose it is, and is refused elsewhere.
        """
        try:
            return self._control_plane.read_text("ascii").strip()
        except FileNotFoundError:
            return None

    def join(self, control_plane: str) -> None:
        """Belong to a control plane from now on."""
        if self.control_plane() is None:
            files.write_atomically(self._control_plane, f"{control_plane}\n".encode())

    def of_host(self, host: str) -> str:
        """Return the node uuid of one of the many hosts that a simulating agent stands for."""
        return str(uuid.uuid5(uuid.UUID(self.node_uuid), host))


def _node_uuid(path: Path) -> str:
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        text = str(uuid.uuid4())
        files.write_atomically(path, f"{text}\n".encode())
    try:
        return str(uuid.UUID(text))
    except ValueError as exc:
        raise errors.ConfigurationError(f"[DEFAULT] state_path: {path} does not hold a uuid") from exc
