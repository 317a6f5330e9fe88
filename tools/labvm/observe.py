# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What there is inside the lab's machine, as the kernel and libvirt say themselves; accelsched is not asked."""

from __future__ import annotations

from accelsched import names
from labvm.machine import Machine

_MDEVS = "/sys/bus/mdev/devices"


def mdevs(machine: Machine) -> dict[str, str]:
    """Return the PCI address of the parent of every mediated device, by the device's uuid."""
    script = f'for device in {_MDEVS}/*; do [ ! -e "$device" ] || readlink -f "$device"; done'
    paths = [path.split("/") for path in machine.channel.check(["sh", "-c", script]).splitlines()]
    return {path[-1]: path[-2] for path in paths}


def own_mdevs(machine: Machine) -> dict[str, str]:
    """Return those of the mediated devices that carry accelsched's mark."""
    return {uuid: parent for uuid, parent in mdevs(machine).items() if names.is_own_mdev(uuid)}


def definitions(machine: Machine) -> dict[str, str]:
    """Return the parent of every mediated device that mdevctl is to make at a boot, by the device's uuid."""
    found = machine.channel.check(
        ["find", "/etc/mdevctl.d", "-path", "*/scripts.d", "-prune", "-o", "-type", "f", "-print"]
    )
    paths = [path.split("/") for path in found.splitlines()]
    return {path[-1]: path[-2] for path in paths}


def make_mdev(machine: Machine, uuid: str, parent: str, type_: str) -> None:
    """Make a mediated device as an operator would by hand."""
    create = f"/sys/bus/pci/devices/{parent}/mdev_supported_types/{type_}/create"
    machine.channel.check(["sh", "-c", f"echo {uuid} >{create}"])


def remove_mdev(machine: Machine, uuid: str) -> None:
    """Remove a mediated device."""
    machine.channel.check(["sh", "-c", f"echo 1 >{_MDEVS}/{uuid}/remove"])


def mdev_type(machine: Machine, uuid: str) -> str:
    """Return the type of a mediated device."""
    return machine.channel.check(["readlink", "-f", f"{_MDEVS}/{uuid}/mdev_type"]).strip().rpartition("/")[2]


def available_instances(machine: Machine, parent: str, type_: str) -> int:
    """Return how many more mediated devices of a type the GPU's driver would make."""
    path = f"/sys/bus/pci/devices/{parent}/mdev_supported_types/{type_}/available_instances"
    return int(machine.channel.check(["cat", path]))


def remove_function(machine: Machine, address: str) -> None:
    """Pull a PCI function out. The kernel asks whoever has it to let go and waits; so a guest may be asked."""
    path = f"/sys/bus/pci/devices/{address}"
    script = f"(echo 1 >{path}/remove) & for _ in $(seq 1500); do [ -e {path} ] || exit 0; sleep 0.2; done; exit 1"
    machine.channel.check(["sh", "-c", script], timeout=600)


def driver(machine: Machine, address: str) -> str | None:
    """Return the driver that a PCI function is bound to."""
    done = machine.channel.call(["readlink", f"/sys/bus/pci/devices/{address}/driver"])
    return done.stdout.strip().rpartition("/")[2] if done.returncode == 0 else None


def domains(machine: Machine) -> dict[str, str]:
    """Return the state of every libvirt domain (``running``, ``paused``, ``shut off``), by its uuid."""
    uuids = machine.channel.check(["virsh", "--quiet", "list", "--all", "--uuid"]).split()
    asked = {uuid: machine.channel.call(["virsh", "--quiet", "domstate", uuid]) for uuid in uuids}
    # One that went between the two questions is gone.
    return {uuid: answer.stdout.strip() for uuid, answer in asked.items() if answer.returncode == 0}


def domain_xml(machine: Machine, uuid: str) -> str:
    """Return the definition of a domain as it runs."""
    return machine.channel.check(["virsh", "--quiet", "dumpxml", uuid])
