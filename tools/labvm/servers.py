# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A server in the lab, as its owner makes and asks for it, and as its guest says it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stack.errors import StackError

from labvm import observe
from labvm.control import ControlPlane, wait_for
from labvm.machine import HOST, Machine

_WORKED_S = 600.0
_STATE = "/var/lib/accelsched"

LIVE_MIGRATE = ("server", "migrate", "--os-compute-api-version", "2.30", "--live-migration")


@dataclass(frozen=True)
class Server:
    """A server on a machine's host."""

    control: ControlPlane
    machine: Machine
    uuid: str

    @classmethod
    def create(cls, control: ControlPlane, machine: Machine, name: str, *properties: str) -> Server:
        """Make a flavor and a server of it; return it once it is ACTIVE.

        :param properties: of the flavor
        """
        size = ("--vcpus", "1", "--ram", "128", "--disk", "1")
        asked = [word for text in properties for word in ("--property", text)]
        control.openstack("flavor", "create", f"lab-{name}", *size, *asked)
        flavor_and_image = ("--flavor", f"lab-{name}", "--image", "accelsched-guest")
        shown = control.show("server", "create", *flavor_and_image, "--nic", "none", "--wait", name)
        assert shown["status"] == "ACTIVE", shown
        return cls(control, machine, str(shown["id"]))

    def shown(self) -> dict[str, Any]:
        """Return what the API tells of it."""
        shown: dict[str, Any] = self.control.get(f"/compute/v2.1/servers/{self.uuid}")["server"]
        return shown

    def reaches(self, status: str) -> None:
        """Wait until it has a status and nothing is being done about it."""

        def there() -> bool:
            shown = self.shown()
            return (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, None)

        wait_for(there, _WORKED_S, f"{self.uuid} to be {status}")

    def actions(self) -> list[dict[str, Any]]:
        """Return what was done about it, the newest first."""
        path = f"/compute/v2.1/servers/{self.uuid}/os-instance-actions"
        told: list[dict[str, Any]] = self.control.get(path)["instanceActions"]
        return told

    def device(self, resource_class: str) -> str:
        """Return the PCI address of the device that it holds an allocation of."""
        allocations = self.control.show("resource", "provider", "allocation", "show", self.uuid)
        [provider] = [held["resource_provider"] for held in allocations if resource_class in held["resources"]]
        name: str = self.control.get(f"/placement/resource_providers/{provider}")["name"]
        domain, bus, slot, function = name.removeprefix(f"{HOST}_pci_").split("_")
        return f"{domain}:{bus}:{slot}.{function}"

    def console(self) -> str:
        """Return what its guest has said, as its owner reads it."""
        return self.control.openstack("console", "log", "show", self.uuid)

    def says(self, pattern: str, times: int = 1) -> list[str]:
        """Return what the guest says once it has said so often.

        :param pattern: of Python's ``re``
        """
        path = f"{_STATE}/instances/{self.uuid}/console.log"

        def look() -> list[str] | None:
            found = re.findall(pattern, self.machine.channel.call(["cat", path]).stdout)
            return found if len(found) >= times else None

        try:
            return wait_for(look, _WORKED_S, f"{pattern!r} on the console of {self.uuid}", interval=1.0)
        except TimeoutError as exc:
            state = observe.domains(self.machine).get(self.uuid)
            said = self.machine.channel.call(["tail", "-c", "4000", path]).stdout
            raise AssertionError(f"{exc}; the domain is {state}, its console ends:\n{said}") from exc

    def booted(self, times: int = 1) -> None:
        """Wait until the guest has booted so often."""
        self.says("accelsched-guest: ready", times)

    def delete(self) -> None:
        """Delete it, and see that nothing of it is left."""
        self.control.openstack("server", "delete", "--wait", self.uuid)
        assert self.uuid not in observe.domains(self.machine)
        assert observe.own_mdevs(self.machine) == {}
        assert observe.definitions(self.machine) == {}
        assert self.machine.channel.check(["ls", f"{_STATE}/mdevs"]) == ""
        assert self.uuid not in self.machine.channel.check(["ls", f"{_STATE}/instances"])
        assert self.control.show("resource", "provider", "allocation", "show", self.uuid) == []
        try:
            still = self.control.show("server", "show", self.uuid)
        except StackError as exc:
            assert re.search(r"No [Ss]erver found", str(exc)), exc
        else:
            raise AssertionError(f"the server is still there: {still}")
