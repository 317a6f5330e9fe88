# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""accelsched itself, all parts in one process."""

from __future__ import annotations

import sys
from pathlib import Path

from stack import accounts, files, http, progress
from stack.daemon import Daemon
from stack.errors import StackError
from stack.identity import Keystone
from stack.image import Glance

START_TIMEOUT_S = 120.0
PROJECT = Path(__file__).resolve().parents[2]

_CONFIGURATION = """\
# Written by tools/quickstart at each start; changes are lost.
[DEFAULT]
use_stderr = true

[api]
auth_strategy = keystone

{site_options}
[keystone_authtoken]
{credentials}
www_authenticate_uri = {auth_url}
service_token_roles_required = true

[glance]
{credentials}
region_name = {region}
"""

_CREDENTIALS = """\
auth_type = password
auth_url = {auth_url}
username = accelsched
password = {password}
project_name = {project}
user_domain_id = default
project_domain_id = default"""


class Standalone:
    """``accelsched-standalone`` beside a Keystone and a Glance of the same stack.

    :param state_dir: the stack's directory
    :param port: port of loopback
    """

    def __init__(self, state_dir: Path, keystone: Keystone, glance: Glance, port: int = 8790) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.daemon = Daemon("accelsched-standalone", state_dir)
        self.configuration = state_dir / "accelsched.conf"
        self._keystone = keystone
        self._glance = glance

    def start(self, home: Path, site_options: str, report: progress.Report = progress.say) -> bool:
        """Start it unless it runs as it should; return when it answers. Return whether it was started now.

        :param home: directory of its own state
        :param site_options: sections of its configuration
        :raises StackError: when it does not come up
        """
        files.directory(home)
        text = self.configuration_text(site_options)
        files.write(self.configuration, text, mode=0o600)
        if self.daemon.pid() is None and http.port_is_taken(self.port):
            raise StackError(
                f"port {self.port}, which accelsched is to have, is taken by another program: end that first"
            )
        with progress.step("accelsched", report) as step:
            program = Path(sys.executable).parent / "accelsched-standalone"
            command: list[str | Path] = [program, "--config-file", self.configuration, "--state-dir", home]
            started = self.daemon.start(
                [*command, "--bind", f"127.0.0.1:{self.port}"], configuration=f"{text}{_code_stamp()}"
            )
            self.daemon.wait_until(lambda: http.answers(f"{self.url}/healthcheck"), START_TIMEOUT_S)
            step.detail = f"{self.url}{'' if started else ', runs already'}"
        return started

    def stop(self) -> bool:
        """Stop it; return whether it ran."""
        return self.daemon.stop(60.0)

    def configuration_text(self, site_options: str) -> str:
        """Return its configuration file, which holds a password."""
        credentials = _CREDENTIALS.format(
            auth_url=self._keystone.url,
            password=self._keystone.passwords.get("accelsched"),
            project=accounts.SERVICE_PROJECT,
        )
        return _CONFIGURATION.format(
            site_options=site_options,
            credentials=credentials,
            auth_url=self._keystone.url,
            region=accounts.REGION,
        )


def _code_stamp() -> int:
    """Return when the package's code changed last: a checkout that was updated is started anew."""
    return max((path.stat().st_mtime_ns for path in (PROJECT / "accelsched").rglob("*.py")), default=0)
