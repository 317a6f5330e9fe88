# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The control plane beside the lab's machine, on the loopback of the outer one: all of it real."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from keystoneauth1 import adapter
from stack import accounts, clouds, guest, http, progress
from stack.client import OpenStackClient
from stack.identity import Keystone
from stack.image import Glance, Images
from stack.service import Standalone

from labvm import rabbitmq
from labvm.agent import Agent, Neighbours

_Result = TypeVar("_Result")

_COMMAND_TIMEOUT_S = 600.0


class ControlPlane:
    """Keystone, Glance, and accelsched without an agent, on free ports; a virtual host of RabbitMQ.

    :param state_dir: everything they keep, emptied at each start; logs are below ``log/``
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        # The broker is one for all labs of this machine.
        self._virtual_host = f"lab-{hashlib.sha256(bytes(state_dir.resolve())).hexdigest()[:12]}"
        self._rabbitmq = rabbitmq.RabbitMQ(state_dir)
        self._keystone = Keystone(state_dir, http.free_port(), hash_rounds=4)
        self._glance = Glance(state_dir, self._keystone, http.free_port())
        self._service = Standalone(state_dir, self._keystone, self._glance, http.free_port())
        self._clouds = state_dir / "clouds.yaml"
        self._client = OpenStackClient(self._clouds, report=progress.silent)

    @property
    def logs(self) -> list[Path]:
        """The log of each process."""
        return [daemon.log for daemon in (self._keystone.daemon, self._glance.daemon, self._service.daemon)]

    def start(self, report: progress.Report = progress.say) -> None:
        """Start everything and upload the guest's image, ``accelsched-guest``; what a killed run left is ended first.

        :raises stack.errors.StackError: when something does not come up
        """
        self._stop_services()
        shutil.rmtree(self._state_dir, ignore_errors=True)
        self._state_dir.mkdir(parents=True, mode=0o700)
        self._rabbitmq.start()
        self._rabbitmq.delete_virtual_host(self._virtual_host)
        self._rabbitmq.make_virtual_host(self._virtual_host)
        self._keystone.start(report)
        self._glance.start(report)
        accounts.ensure(self._keystone, accounts.catalog(self._glance.url, self._service.url))
        Images(self._keystone.session(), self._glance.url).ensure_guest(guest.build(report=report))
        clouds.write(self._clouds, self._keystone)
        transport_url = rabbitmq.url("127.0.0.1", self._virtual_host)
        options = (
            f"[DEFAULT]\ntransport_url = {transport_url}\nallow_resize_to_same_host = true\n\n"
            "[standalone]\nservices = api, scheduler\n"
        )
        self._service.start(self._state_dir / "accelsched", options, report)

    def stop(self) -> None:
        """Stop everything that :meth:`start` started."""
        self._stop_services()
        self._rabbitmq.delete_virtual_host(self._virtual_host)
        self._rabbitmq.stop()

    def _stop_services(self) -> None:
        stops: list[Callable[[], object]] = [self._service.stop, self._glance.stop, self._keystone.stop]
        with ThreadPoolExecutor(len(stops)) as pool:  # each takes seconds to end in good order
            list(pool.map(lambda stop: stop(), stops))

    def neighbours(self) -> Neighbours:
        """Return what the agent in the machine has to know."""
        password = self._keystone.passwords.get("accelsched")
        return Neighbours(self._virtual_host, self._keystone.port, self._glance.port, password)

    def openstack(self, *arguments: str) -> str:
        """Return what the ``openstack`` client prints, run as the operator.

        :raises stack.errors.StackError: with what it said, when it fails
        """
        return self._client.run(*arguments, timeout_s=_COMMAND_TIMEOUT_S)

    def show(self, *arguments: str) -> Any:
        """Return the answer of an ``openstack`` command that can give it as JSON."""
        return json.loads(self.openstack(*arguments, "-f", "json"))

    def get(self, path: str) -> Any:
        """Return what a path below the port answers the operator: for looking again and again, a client takes 2 s."""
        return self._http.get(f"{self._service.url}{path}").json()

    @cached_property
    def _http(self) -> adapter.Adapter:
        return adapter.Adapter(self._keystone.session(), raise_exc=True)

    def wait_until_reported(self, agent: Agent, timeout: float = 600.0) -> None:
        """Wait until the agent in a machine has reported its host.

        :raises AssertionError: when the agent ends before
        """

        def look() -> bool:
            if self.get(f"/placement/resource_providers?name={agent.host}")["resource_providers"]:
                return True
            assert agent.runs(), f"the agent of {agent.host} ended before it reported it; its log: {agent.log}"
            return False

        wait_for(look, timeout, f"{agent.host} to be reported")


def wait_for(look: Callable[[], _Result | None], timeout: float, what: str, interval: float = 0.5) -> _Result:
    """Look again and again until there is something to see, and return that.

    :param timeout: seconds
    :param what: what is waited for, to say when it does not come
    :raises TimeoutError: when it does not come
    """
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}; last seen: {seen!r}")
        time.sleep(interval)
