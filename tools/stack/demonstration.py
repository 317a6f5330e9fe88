# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the quickstart shows: a flavor that asks for a vGPU, a server of it, its console, what it holds and why.

What a user does is done by the ``openstack`` client. Looking whether it is done already asks the APIs directly: the
client takes seconds to start.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keystoneauth1 import adapter, exceptions, session

from stack import progress
from stack.client import OpenStackClient
from stack.errors import StackError
from stack.service import Standalone

FLAVOR = "accel.vgpu.small"
SERVER = "quickstart"
IMAGE = "accelsched-guest"
MARK = "accelsched-guest: "
USER_DATA = "# Hello from the user data of tools/quickstart\n"

HOST_TIMEOUT_S = 180.0
BUILD_TIMEOUT_S = 420.0
CONSOLE_TIMEOUT_S = 420.0

_SERVER_FIELDS = ("id", "name", "status", "OS-EXT-SRV-ATTR:host", "flavor", "image", "config_drive", "created")


class Demonstration:
    """The server ``quickstart`` from nothing to its console.

    :param client: the ``openstack`` client, as the operator
    :param client_session: the operator's session, for looking
    :param service: accelsched, whose log is named when something fails
    """

    def __init__(self, client: OpenStackClient, client_session: session.Session, service: Standalone) -> None:
        self._client = client
        self._service = service
        self._placement = adapter.Adapter(
            client_session,
            endpoint_override=f"{service.url}/placement",
            service_type="placement",
            default_microversion="1.39",
        )
        self._compute = adapter.Adapter(
            client_session,
            endpoint_override=f"{service.url}/compute/v2.1",
            service_type="compute",
            default_microversion="2.79",
        )

    def run(self) -> str:
        """Have a server with a vGPU that booted, and show it; return its id."""
        self._wait_for_vgpu()
        self._ensure_flavor()
        server_id = self._ensure_server()
        self._wait_for_console(server_id)
        progress.say("")
        columns = [word for field in _SERVER_FIELDS for word in ("-c", field)]
        commands = (
            ("server", "show", *columns, "--max-width", "120", server_id),
            ("resource", "provider", "allocation", "show", server_id),
            ("accel", "server", "explain", "--max-width", "120", server_id),
        )
        with ThreadPoolExecutor(max_workers=2) as pool:
            for lines in pool.map(lambda command: self._client.transcript(*command), commands):
                progress.say(lines)
        return server_id

    def _wait_for_vgpu(self) -> None:
        """Wait until a host has reported a vGPU, free or taken."""
        with progress.step("waiting for a host that reports a vGPU") as step:
            deadline = time.monotonic() + HOST_TIMEOUT_S
            while True:
                try:
                    found = self._vgpu_providers()
                except (exceptions.ConnectFailure, exceptions.HttpError) as exc:
                    found, step.detail = [], f"({exc})"
                if found:
                    step.detail = ", ".join(found)
                    return
                self._check_alive()
                if time.monotonic() > deadline:
                    raise StackError(f"no host reported a vGPU within {HOST_TIMEOUT_S:g} s", self._service.daemon.log)
                time.sleep(0.5)

    def _vgpu_providers(self) -> list[str]:
        found = []
        for provider in self._placement.get("/resource_providers").json()["resource_providers"]:
            inventories = self._placement.get(f"/resource_providers/{provider['uuid']}/inventories").json()
            vgpu = inventories["inventories"].get("VGPU")
            if vgpu:
                found.append(f"{vgpu['total']} at {provider['name']}")
        return found

    def _ensure_flavor(self) -> None:
        if any(flavor["name"] == FLAVOR for flavor in self._compute.get("/flavors").json()["flavors"]):
            progress.say(f"ok  flavor {FLAVOR}: there already")
            return
        size = ("--ram", "256", "--vcpus", "1", "--disk", "1")
        self._client.run("flavor", "create", *size, "--property", "resources:VGPU=1", FLAVOR, show=True)

    def _ensure_server(self) -> str:
        """Boot the server unless it runs; one that failed or was stopped makes way for a new one.

        :raises StackError: when it does not become ACTIVE
        """
        for known in self._servers():
            if known["status"] in ("ACTIVE", "BUILD"):
                progress.say(f"ok  server {SERVER}: there already, {known['id']}")
                return self._wait_until_active(known["id"])
            progress.say(f"    server {SERVER} is {known['status']}: replaced")
            self._client.run("server", "delete", "--wait", known["id"], show=True, timeout_s=BUILD_TIMEOUT_S)
        with tempfile.NamedTemporaryFile("w", prefix="accelsched-", suffix=".userdata") as user_data:
            user_data.write(USER_DATA)
            user_data.flush()
            wanted = ("--flavor", FLAVOR, "--image", IMAGE, "--nic", "none", "--config-drive", "true")
            create = ("server", "create", "--wait", *wanted, "--user-data", user_data.name, SERVER)
            with progress.step(f"booting server {SERVER}"):
                try:
                    self._client.run(*create, show=True, timeout_s=BUILD_TIMEOUT_S)
                except StackError as exc:
                    faults = [server.get("fault", {}).get("message") for server in self._servers()]
                    raise StackError(f"{exc}\n  fault: {faults}", self._service.daemon.log) from exc
        return self._wait_until_active(self._servers()[0]["id"])

    def _servers(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._compute.get("/servers/detail", params={"name": f"^{SERVER}$"}).json()[
            "servers"
        ]
        return listed

    def _wait_until_active(self, server_id: str) -> str:
        deadline = time.monotonic() + BUILD_TIMEOUT_S
        while True:
            server = self._compute.get(f"/servers/{server_id}").json()["server"]
            if server["status"] == "ACTIVE":
                return server_id
            self._check_alive()
            if server["status"] == "ERROR" or time.monotonic() > deadline:
                fault = server.get("fault", {}).get("message", "")
                raise StackError(f"server {server_id} is {server['status']}: {fault}", self._service.daemon.log)
            time.sleep(0.5)

    def _wait_for_console(self, server_id: str) -> None:
        """Wait until the guest says on its console that it is ready; show what it said.

        :raises StackError: when it does not in time
        """
        with progress.step("waiting for the guest to boot") as step:
            deadline = time.monotonic() + CONSOLE_TIMEOUT_S
            while True:
                lines = self._guest_lines(server_id)
                # Of several boots in one log the last counts.
                if lines and lines[-1] == "ready":
                    break
                step.detail = f"({lines[-1]})" if lines else ""
                self._check_alive()
                if time.monotonic() > deadline:
                    raise StackError(
                        f"the guest did not say that it is ready within {CONSOLE_TIMEOUT_S:g} s; "
                        f"see: openstack console log show {server_id}",
                        self._service.daemon.log,
                    )
                time.sleep(1)
            step.detail = lines[-1]
        console = self._client.transcript("console", "log", "show", server_id).splitlines()
        starts = [number for number, line in enumerate(console) if f"{MARK}kernel" in line]
        # The bridges of its PCI bus are of no interest here.
        shown = [line for line in console[starts[-1] if starts else 1 :] if "class=0x06" not in line]
        progress.say("\n".join([console[0], *shown]))

    def _guest_lines(self, server_id: str) -> list[str]:
        body: dict[str, Any] = {"os-getConsoleOutput": {}}
        answer = self._compute.post(f"/servers/{server_id}/action", json=body, raise_exc=False)
        if answer.status_code != 200:
            return []
        lines = answer.json()["output"].splitlines()
        return [line.partition(MARK)[2].strip() for line in lines if MARK in line]

    def _check_alive(self) -> None:
        if self._service.daemon.pid() is None:
            raise StackError("accelsched ended", self._service.daemon.log)
