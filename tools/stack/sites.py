# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the quickstart's servers run: on this machine, or in the hardware lab's."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from stack import progress
from stack.errors import StackError
from stack.hypervisor import Host, Hypervisor, look, reachable_by_qemu
from stack.identity import Keystone
from stack.image import Glance


class Site(Protocol):
    """Where servers run."""

    name: str

    def start(self) -> None:
        """Make the place ready, before accelsched starts."""

    def home(self) -> Path:
        """Return the directory of accelsched's own state; known after :meth:`start`."""

    def options(self) -> str:
        """Return the sections of accelsched's configuration that this place decides."""

    def join(self, keystone: Keystone, glance: Glance) -> None:
        """Bring in what needs accelsched to run."""

    def notes(self) -> list[str]:
        """Return what an operator has to know: what is simulated, what is slow."""

    def domains(self) -> list[str]:
        """Return the names of the domains that run."""

    def end_domains(self) -> str:
        """End the servers' domains; return what was done."""

    def stop(self) -> str:
        """End what :meth:`start` started; return what was done."""


class ThisMachine:
    """The agent is part of accelsched's one process, libvirt is this machine's."""

    name = "this machine"

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._hypervisor = Hypervisor(state_dir)
        self._host: Host | None = None

    def start(self) -> None:
        """Look at the machine, start libvirt.

        :raises StackError: when guests cannot run here
        """
        blocked = reachable_by_qemu(self._state_dir)
        if blocked is not None:
            raise StackError(
                f"QEMU's user cannot reach {self._state_dir}: {blocked} lets nobody pass. "
                f"Choose another --state-dir, or: chmod o+x {blocked}"
            )
        with progress.step("what this machine can do") as step:
            self._host = look()
            step.detail = f"guests run with {'KVM' if self._host.virt_type == 'kvm' else 'TCG (software emulation)'}"
        self._hypervisor.start(self._host.virt_type == "kvm")

    def home(self) -> Path:
        """Return one directory for ever."""
        return self._state_dir / "accelsched"

    def options(self) -> str:
        """Have the agent offer what the machine has, or simulated devices."""
        host = self._known()
        return (
            # There is no other host that a server could be resized on.
            f"[DEFAULT]\nallow_resize_to_same_host = true\n\n"
            f"[agent]\nvirt_driver = libvirt\ndevice_drivers = {'mdev, pci' if host.mdev_parents else 'simulated'}\n"
            f"sync_interval = 10\n\n"
            f"[libvirt]\n# Found out by running a guest's first instructions: {host.virt_reason}\n"
            f"virt_type = {host.virt_type}\n"
        )

    def join(self, keystone: Keystone, glance: Glance) -> None:
        """Do nothing: the agent came with the service."""

    def notes(self) -> list[str]:
        """Say what is simulated and what is emulated."""
        host = self._known()
        if host.mdev_parents:
            lines = [f"GPU: real mediated devices of {', '.join(host.mdev_parents)}."]
        else:
            lines = [
                "GPU: SIMULATED. This machine has no device that offers mediated devices (/sys/class/mdev_bus), so the",
                "     server's vGPU is a record only; the server itself is a real libvirt domain. Real ones: --lab",
            ]
        if host.virt_type == "qemu":
            lines.append(f"CPU: software emulation (TCG), slow: {host.virt_reason}.")
        return lines

    def domains(self) -> list[str]:
        """Return the stack's domains."""
        return self._hypervisor.domains()

    def end_domains(self) -> str:
        """End the stack's domains, keep their disks."""
        count = self._hypervisor.end_domains()
        return f"{count}; their disks stay, the next start brings them back" if count else "none"

    def stop(self) -> str:
        """Stop libvirt if it was started here and nobody else uses it."""
        return "libvirt stopped" if self._hypervisor.stop() else "libvirt stays: somebody else's, or others use it"

    def _known(self) -> Host:
        if self._host is None:
            raise AssertionError("start() comes first")
        return self._host


class LabMachine:
    """The agent is a process in the lab's virtual machine, which has real mediated devices; RabbitMQ between."""

    name = "the hardware lab"
    _VIRTUAL_HOST = "accelsched-quickstart"

    def __init__(self, state_dir: Path) -> None:
        from labvm import rabbitmq  # noqa: PLC0415 - the lab builds on this package; only --lab needs it

        self._state_dir = state_dir
        self._rabbitmq = rabbitmq.RabbitMQ(state_dir)
        self._transport_url = rabbitmq.url("127.0.0.1", self._VIRTUAL_HOST)
        self._machine_pid: int | None = None
        # Says that the machine was started from here, and is not one of the lab's own tests.
        self._ours = state_dir / "lab-machine"

    def start(self) -> None:
        """Start RabbitMQ and the machine.

        :raises StackError: when the machine does not come up
        """
        from labvm import build, machine  # noqa: PLC0415

        with progress.step("RabbitMQ") as step:
            self._rabbitmq.start()
            self._rabbitmq.make_virtual_host(self._VIRTUAL_HOST)
            step.detail = "127.0.0.1:5672"
        with _lab_errors(), progress.step("the lab's machine") as step:
            if machine.running() is None:
                self._ours.touch()
            elif not self._ours.exists():
                raise StackError(
                    "the lab's machine is in use by others: its tests, or tools/lab up; first: tools/lab down"
                )
            running = machine.start(build.build())
            self._machine_pid = running.pid
            step.detail = f"console {running.folder}/console.log"

    def home(self) -> Path:
        """Return a directory of this very machine's: what another one knew is gone with everything in it."""
        return self._state_dir / "lab" / str(self._machine_pid)

    def options(self) -> str:
        """Run everything but the agent, which comes by RabbitMQ."""
        return f"[DEFAULT]\ntransport_url = {self._transport_url}\n\n[standalone]\nservices = api, scheduler\n"

    def join(self, keystone: Keystone, glance: Glance) -> None:
        """Start the agent in the machine unless it runs.

        :raises StackError: when the machine is not there any more
        """
        from labvm import agent, machine  # noqa: PLC0415

        with _lab_errors(), progress.step("the agent in the lab's machine") as step:
            running = machine.running()
            if running is None:
                raise StackError("the lab's machine ended meanwhile")
            password = keystone.passwords.get("accelsched")
            program = agent.Agent(running, agent.Neighbours(self._VIRTUAL_HOST, keystone.port, glance.port, password))
            if running.channel.call(["pgrep", "-f", "accelsched-agent --config-file"]).returncode == 0:
                step.detail = f"runs already, log {program.log}"
            else:
                program.start()
                step.detail = f"log {program.log}"

    def notes(self) -> list[str]:
        """Say what is real and what is not."""
        return [
            "GPU: real mediated devices (Linux VFIO), made by the lab's GPU driver in the lab's virtual machine.",
            "CPU: the lab's machine is software emulation, its guests run nested in it: slow.",
            "     Stopping the stack stops the machine, and what ran in it is gone.",
        ]

    def domains(self) -> list[str]:
        """Return the domains in the machine."""
        from labvm import machine  # noqa: PLC0415

        running = machine.running()
        if running is None:
            return []
        listed = running.channel.call(["virsh", "-q", "list", "--name"])
        return [name for name in str(listed.stdout).split() if name.startswith("accelsched-")]

    def end_domains(self) -> str:
        """Leave them to the machine's end."""
        return "they end with the lab's machine"

    def stop(self) -> str:
        """Stop the machine and RabbitMQ if they were started from here."""
        from labvm import machine  # noqa: PLC0415

        running = machine.running()
        stopped = running is not None and self._ours.exists()
        if running is not None and stopped:
            running.stop()
        self._ours.unlink(missing_ok=True)
        shutil.rmtree(self._state_dir / "lab", ignore_errors=True)
        with contextlib.suppress(OSError, ValueError):
            self._rabbitmq.delete_virtual_host(self._VIRTUAL_HOST)
        self._rabbitmq.stop()
        return "the lab's machine stopped" if stopped else "the lab's machine was not started from here"


@contextlib.contextmanager
def _lab_errors() -> Iterator[None]:
    """Tell the lab's errors as the stack's."""
    from labvm.channel import ChannelError  # noqa: PLC0415
    from labvm.machine import MachineError  # noqa: PLC0415
    from labvm.packages import BuildError  # noqa: PLC0415

    try:
        yield
    except (BuildError, ChannelError, MachineError) as exc:
        raise StackError(f"the lab: {exc}") from exc
