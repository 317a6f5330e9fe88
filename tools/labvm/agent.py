# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-agent`` inside the lab's machine, its control plane on the outer one.

It is another user's process than root's, as ``doc/source/how-to/run-the-agent-unprivileged.rst`` says.
"""

from __future__ import annotations

import enum
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from accelsched.failpoints import Point
from labvm import rabbitmq
from labvm.machine import FPGA, NVME, OUTER, Machine, Place

USER = "accelsched"

# What a guest's own PCI bus shows of the lab's cards.
VGPU_ID = "4348:3253"
FPGA_ID = "1234:11e8"
NVME_ID = "1b36:0010"
# What a guest says of the FPGA's registers: its id, the bitwise NOT of 0x12345678, 5!
EDU_ANSWERS = "id=0x010000ED live=0xEDCBA987 factorial5=0x00000078"

_CONFIGURATION = """\
[DEFAULT]
transport_url = {transport_url}

[agent]
host = {host}
virt_driver = libvirt
device_drivers = mdev, pci
{user}
report_interval = 5
sync_interval = 10
# A guest that lets go later does so all the same.
detach_timeout = 20

[libvirt]
# The machine's emulated CPU has SVM; asking takes longer here than knowing.
virt_type = kvm
live_migration_uri = qemu+tcp://%s/system
{address}

[devices]
{types}
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


_ONE_TYPE = "enabled_mdev_types = labgpu-1"
_TWO_TYPES = """\
enabled_mdev_types = labgpu-1, labgpu-2
mdev_class = labgpu-1:VGPU, labgpu-2:CUSTOM_VGPU_LARGE"""
PORTS = 8  # that the two types share on each GPU: the first takes one, the second two


class Helper(enum.Enum):
    """Who starts the agent's helper, which is root."""

    FORKED = enum.auto()  # the agent itself, before it becomes another user
    SUDO = enum.auto()


_FILES = ("--config-file", "/run/lab/agent.conf")
_HELPER_ARGUMENTS = "--privsep_context accelsched.agent.privileged.context.ROOT --privsep_sock_path *"


@dataclass(frozen=True)
class Neighbours:
    """Where the agent finds the rest, all on the outer machine's loopback."""

    virtual_host: str  # of RabbitMQ
    keystone_port: int
    glance_port: int
    password: str  # of Keystone's user accelsched

    def configuration(self, place: Place, helper: Helper) -> str:
        """Return the configuration file of a machine's agent."""
        return _CONFIGURATION.format(
            transport_url=rabbitmq.url(OUTER, self.virtual_host),
            host=place.host,
            user=f"user = {USER}" if helper is Helper.FORKED else "",
            address=f"live_migration_inbound_addr = {place.address}" if place.address else "",
            types=_TWO_TYPES if place.other else _ONE_TYPE,
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

    def __init__(self, machine: Machine, neighbours: Neighbours, helper: Helper = Helper.FORKED) -> None:
        self._machine = machine
        self._helper = helper
        self._program = Path(sys.executable).parent / "accelsched-agent"
        self.log = machine.shared / "agent.log"
        self._fail_points = machine.shared / "fail-points"
        self._fail_points.mkdir(exist_ok=True)
        self._fail_points.chmod(0o777)  # below a folder that is its owner's alone
        self._pid: int | None = None
        configuration = machine.shared / "agent.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(neighbours.configuration(machine.place, helper))

    def start(self) -> None:
        """Start it; it takes some 15 s until it has reported the host."""
        # A library of the agent loads eventlet where that is installed, though nothing here uses it; without its name
        # service that takes 3 s less in this machine.
        environment = ["env", "EVENTLET_NO_GREENDNS=yes", f"ACCELSCHED_FAIL_POINTS=/run/lab/{self._fail_points.name}"]
        command = shlex.join([*self._as_user(), *environment, *self._command])
        self._make_ready()
        self._pid = int(
            self._machine.channel.check(
                ["sh", "-c", f"setsid {command} </dev/null >>/run/lab/agent.log 2>&1 & echo $!"]
            )
        )

    @property
    def _command(self) -> list[str]:
        return [str(self._program), *_FILES]

    def _as_user(self) -> list[str]:
        """Return what starts a command as the user that is to call it; the agent becomes another one by itself."""
        if self._helper is Helper.FORKED:
            return []
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]

    def _make_ready(self) -> None:
        """Make of the machine what an installation makes of a host; it has forgotten that after a reboot."""
        # Whoever is not root must reach Python, its environment and the checkout, which may be below root's home.
        reached = (self._program, Path(sys.base_prefix, "lib"), Path(__file__))
        above = {str(parent) for path in reached for parent in path.parents}
        self._machine.channel.check(["chmod", "o+x", *sorted(above)])
        if self._helper is Helper.SUDO:
            script = f"chgrp {USER} /run/lab/agent.conf && chmod 640 /run/lab/agent.conf && cat >/etc/sudoers.d/{USER}"
            helper = shlex.join([str(self._program.with_name("privsep-helper")), *_FILES])
            allowed = f"{USER} ALL = (root) NOPASSWD: {helper} {_HELPER_ARGUMENTS}\n"
            self._machine.channel.check(["sh", "-c", script], input_=allowed)

    def devices(self) -> str:
        """Return what ``accelsched-agent devices`` prints, called as the agent is started."""
        return self._machine.channel.check([*self._as_user(), str(self._program), "devices", *_FILES])

    def users(self) -> list[str]:
        """Return the users of its processes, first its own, then its children's."""
        listed = ["ps", "-o", "user=", "-p", str(self._pid), "--ppid", str(self._pid), "--sort", "start_time"]
        return self._machine.channel.check(listed).split()

    @property
    def host(self) -> str:
        """The name by which it reports its host."""
        return self._machine.place.host

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
