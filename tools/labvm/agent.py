# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-agent`` inside the lab's machine, its control plane on the outer one."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from accelsched.failpoints import Point
from labvm import rabbitmq
from labvm.machine import FPGA, NVME, OUTER, Machine, Place

# What a guest's own PCI bus shows of the lab's cards.
VGPU_ID = "4348:3253"
FPGA_ID = "1234:11e8"
NVME_ID = "1b36:0010"

_CONFIGURATION = """\
[DEFAULT]
transport_url = {transport_url}

[agent]
host = {host}
virt_driver = libvirt
device_drivers = mdev, pci
report_interval = 2
sync_interval = 5

[libvirt]
# The machine's emulated CPU has SVM; asking takes longer here than knowing.
virt_type = kvm
live_migration_uri = qemu+tcp://%s/system
{address}

[devices]
enabled_mdev_types = labgpu-1
pci_device_spec = {{"address": "{fpga}", "resource_class": "FPGA"}}
pci_device_spec = {{"address": "{nvme}", "resource_class": "CUSTOM_NVME_VF"}}

[glance]
auth_type = password
auth_url = http://{outer}:{keystone_port}/v3
username = accelsched
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
endpoint_override = http://{outer}:{glance_port}
"""


@dataclass(frozen=True)
class Neighbours:
    """Where the agent finds the rest, all on the outer machine's loopback."""

    virtual_host: str  # of RabbitMQ
    keystone_port: int
    glance_port: int
    password: str  # of Keystone's user accelsched

    def configuration(self, place: Place) -> str:
        """Return the configuration file of a machine's agent."""
        return _CONFIGURATION.format(
            transport_url=rabbitmq.url(OUTER, self.virtual_host),
            host=place.host,
            address=f"live_migration_inbound_addr = {place.address}" if place.address else "",
            fpga=FPGA,
            nvme=NVME,
            outer=OUTER,
            keystone_port=self.keystone_port,
            glance_port=self.glance_port,
            password=self.password,
        )


class Agent:
    """The agent's process. What it logs is ``agent.log`` in the machine's shared folder.

    :param machine: where it runs
    :param neighbours: what it talks to
    """

    def __init__(self, machine: Machine, neighbours: Neighbours) -> None:
        self._machine = machine
        self._program = Path(sys.executable).parent / "accelsched-agent"
        self.log = machine.shared / "agent.log"
        self._fail_points = machine.shared / "fail-points"
        self._fail_points.mkdir(exist_ok=True)
        self._pid: int | None = None
        configuration = machine.shared / "agent.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(neighbours.configuration(machine.place))

    def start(self) -> None:
        """Start it; it takes some 15 s until it has reported the host."""
        # A library of the agent loads eventlet where that is installed, though nothing here uses it; without its name
        # service that takes 3 s less in this machine.
        environment = ["env", "EVENTLET_NO_GREENDNS=yes", f"ACCELSCHED_FAIL_POINTS=/run/lab/{self._fail_points.name}"]
        command = shlex.join([*environment, str(self._program), "--config-file", "/run/lab/agent.conf"])
        self._pid = int(
            self._machine.channel.check(
                ["sh", "-c", f"setsid {command} </dev/null >>/run/lab/agent.log 2>&1 & echo $!"]
            )
        )

    def runs(self) -> bool:
        """Tell whether it runs now."""
        return self._pid is not None and self._machine.channel.call(["kill", "-0", str(self._pid)]).returncode == 0

    def kill(self) -> None:
        """Kill it so that it cannot clean up."""
        self._machine.channel.check(["kill", "-KILL", str(self._pid)])

    def kill_at(self, point: Point) -> None:
        """Have it be gone, as killed, at the moment it reaches a point."""
        (self._fail_points / point).touch()

    def stop(self, timeout: float = 300.0) -> None:
        """Ask it to end and wait until it has.

        :raises TimeoutError: when it does not
        """
        self._machine.channel.call(["kill", "-TERM", str(self._pid)])
        deadline = time.monotonic() + timeout
        while self.runs():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the agent did not end within {timeout:g} s; its log: {self.log}")
            time.sleep(0.2)
