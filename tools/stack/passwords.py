# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Passwords made at random, kept in one file that only its owner reads, never shown."""

from __future__ import annotations

import fcntl
import json
import secrets
from pathlib import Path

from stack import files


class Passwords:
    """Passwords by user name, made when first asked for.

    :param path: the file; JSON, mode 0600
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Passwords({self.path})"

    def get(self, user: str) -> str:
        """Return the user's password; a new one is on disk before anybody uses it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # between threads as between processes
            try:
                known = json.loads(self.path.read_text())
            except FileNotFoundError:
                known = {}
            if user not in known:
                known[user] = secrets.token_urlsafe(32)
                files.write(self.path, json.dumps(known, indent=1) + "\n", mode=0o600)
        return str(known[user])
