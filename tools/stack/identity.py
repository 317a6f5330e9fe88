# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A real Keystone on SQLite."""

from __future__ import annotations

import shutil
from pathlib import Path

from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3

from stack import environment, files, http, progress
from stack.daemon import Daemon
from stack.errors import StackError
from stack.passwords import Passwords

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 120.0

_CONFIGURATION = """\
[DEFAULT]
use_stderr = true

[database]
connection = sqlite:///{home}/keystone.sqlite

[fernet_tokens]
key_repository = {home}/fernet-keys

[fernet_receipts]
key_repository = {home}/receipt-keys

[credential]
key_repository = {home}/credential-keys

[identity]
password_hash_rounds = {hash_rounds}
# What bcrypt takes; more would be cut off.
max_password_length = 72
"""


class Keystone:
    """Keystone with an operator ``admin``, its state below ``STATE_DIR/keystone``.

    :param state_dir: the stack's directory
    :param port: port of loopback
    :param hash_rounds: bcrypt's cost, 4 to 31; tests take 4, where every token would cost a quarter of a second
    """

    def __init__(self, state_dir: Path, port: int = 5000, *, hash_rounds: int = 12) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v3"
        self.passwords = Passwords(state_dir / "passwords.json")
        self.daemon = Daemon("keystone", state_dir)
        self._home = state_dir / "keystone"
        self._hash_rounds = hash_rounds

    def start(self, report: progress.Report = progress.say) -> bool:
        """Start it unless it runs; return when it answers. Return whether it was started now.

        :raises StackError: when it cannot be installed or does not come up
        """
        python = environment.services_python(report=report)
        self.passwords.get("admin")  # on disk before Keystone's start reads it
        files.directory(self._home, 0o700)
        text = _CONFIGURATION.format(home=self._home, hash_rounds=self._hash_rounds)
        files.write(self._home / "keystone.conf", text, mode=0o600)
        if self.daemon.pid() is None and http.port_is_taken(self.port):
            raise StackError(
                f"port {self.port}, which Keystone is to have, is taken by another program: end that first"
            )
        with progress.step("Keystone", report) as step:
            script = HERE / "serve" / "keystone_service.py"
            bind = f"127.0.0.1:{self.port}"
            started = self.daemon.start(
                [python, script, bind, self._home, self.url, self.passwords.path], configuration=text
            )
            self.daemon.wait_until(lambda: http.answers(self.url), START_TIMEOUT_S)
            step.detail = f"{self.url}{'' if started else ', runs already'}"
        return started

    def stop(self) -> bool:
        """Stop it; return whether it ran."""
        return self.daemon.stop()

    def erase(self) -> None:
        """Stop it and forget everything it knew."""
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def session(self, user: str = "admin", project: str = "admin") -> ks_session.Session:
        """Return a session of one of the stack's users."""
        auth = v3.Password(
            auth_url=self.url,
            username=user,
            password=self.passwords.get(user),
            project_name=project,
            user_domain_id="default",
            project_domain_id="default",
        )
        return ks_session.Session(auth=auth)
