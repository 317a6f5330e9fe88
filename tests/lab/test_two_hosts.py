# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that go from one machine to another, with the devices that each has. Last, for a second host stays."""

from __future__ import annotations

import re

import pytest
from labvm import observe
from labvm.agent import VGPU_ID, Agent
from labvm.control import ControlPlane, wait_for
from labvm.machine import HOST, PEER, Machine
from stack.errors import StackError

from accelsched import names

_GUEST_S = 1800.0
_MOVED_S = 1800.0
_INSTANCES = "/var/lib/accelsched/instances"
_LIVE = ("server", "migrate", "--os-compute-api-version", "2.30", "--live-migration")


class TwoHosts:
    """Both machines and what their servers are."""

    def __init__(self, control_plane: ControlPlane, machines: dict[str, Machine]) -> None:
        self.control = control_plane
        self.machines = machines

    def create(self, name: str, *more: str) -> str:
        flavor_and_image = ("--flavor", f"lab-{name}", "--image", "accelsched-guest", "--nic", "none")
        uuid: str = self.control.show("server", "create", *flavor_and_image, *more, name)["id"]
        return uuid

    def flavor(self, name: str, *properties: str) -> None:
        self.control.openstack("flavor", "create", "--vcpus", "1", "--ram", "128", "--disk", "1", name, *properties)

    def settled(self, server: str, status: str) -> tuple[str, str]:
        """Return (host, the other host) once a server has a status and nothing is being done about it."""

        def look() -> str | None:
            shown = self.control.get(f"/compute/v2.1/servers/{server}")["server"]
            assert shown["status"] != "ERROR", shown
            there = (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, None)
            return shown["OS-EXT-SRV-ATTR:host"] if there else None

        host = wait_for(look, _MOVED_S, f"{server} to be {status}")
        return host, PEER if host == HOST else HOST

    def console(self, host: str, server: str) -> str:
        return self.machines[host].channel.call(["cat", f"{_INSTANCES}/{server}/console.log"]).stdout

    def says(self, host: str, server: str, pattern: str, times: int = 1) -> list[str]:
        """Return what a guest said once it has said so often."""

        def look() -> list[str] | None:
            found = re.findall(pattern, self.console(host, server))
            return found if len(found) >= times else None

        try:
            return wait_for(look, _GUEST_S, f"{pattern!r} on the console of {server}", interval=1.0)
        except TimeoutError as exc:
            raise AssertionError(f"{exc}; it ends:\n{self.console(host, server)[-3000:]}") from exc

    def mdevs(self, host: str) -> list[str]:
        return [uuid for uuid in observe.mdevs(self.machines[host]) if names.is_own_mdev(uuid)]

    def holds(self, host: str, server: str) -> tuple[bool, bool]:
        """Return whether a host has a server's domain, and its files."""
        machine = self.machines[host]
        return server in observe.domains(machine), server in machine.channel.check(["ls", _INSTANCES]).split()

    def delete(self, server: str) -> None:
        self.control.openstack("server", "delete", "--wait", server)
        for host in self.machines:
            wait_for(
                lambda host=host: self.holds(host, server) == (False, False), _MOVED_S, f"{host} to have nothing of it"
            )


@pytest.fixture(scope="module")
def two(control_plane: ControlPlane, lab_vm: Machine, peer_vm: Machine, peer: Agent) -> TwoHosts:
    assert peer.runs()
    return TwoHosts(control_plane, {HOST: lab_vm, PEER: peer_vm})


@pytest.fixture(scope="module")
def servers(two: TwoHosts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One server with a vGPU and one without a device, which boot at the same time."""
    tick = tmp_path_factory.mktemp("user-data") / "tick"
    tick.write_text("#tick\n")
    two.flavor("lab-plain")
    card = "trait:CUSTOM_PCI_DEVICE_1234_11E8=required"  # not the one whose virtual functions are the parents
    two.flavor("lab-moves", "--property", "resources:VGPU=1", "--property", card)

    plain = two.create("plain", "--user-data", str(tick), "--config-drive", "true")
    return {"plain": plain, "vgpu": two.create("moves")}


def test_the_machines_reach_each_others_libvirt_and_are_two(two: TwoHosts) -> None:
    for host, machine in two.machines.items():
        other = two.machines[PEER if host == HOST else HOST].place
        uri = f"qemu+tcp://{other.address}/system"
        assert machine.channel.check(["virsh", "-c", uri, "hostname"]).strip() == other.host


@pytest.mark.way("live migration without devices", "the guest runs on, the source keeps nothing")
def test_a_server_without_devices_goes_while_its_guest_runs_on(two: TwoHosts, servers: dict[str, str]) -> None:
    server = servers["plain"]
    source, target = two.settled(server, "ACTIVE")
    two.says(source, server, r"tick at ([\d.]+) s", times=2)

    two.control.openstack(*_LIVE, server)
    wait_for(lambda: two.settled(server, "ACTIVE")[0] == target, _MOVED_S, "the server to be there")
    first = float(two.says(target, server, r"tick at ([\d.]+) s")[0])
    assert "accelsched-guest: kernel" not in two.console(target, server)  # it was not booted again
    assert first > 2
    assert observe.domains(two.machines[target])[server] == "running"
    wait_for(lambda: two.holds(source, server) == (False, False), _MOVED_S, "the source to be rid of it")
    migrations = two.control.get(f"/compute/v2.1/os-migrations?instance_uuid={server}")["migrations"]
    assert [migration["status"] for migration in migrations] == ["completed"]
    two.delete(server)


@pytest.mark.way(
    "cold migration with a mediated device", "boots from its disk on the other host, with a device of that one"
)
@pytest.mark.way("live migration with a mediated device", "refused: QEMU is too old, and that is said")
def test_a_vgpu_goes_with_a_shutdown_only_for_this_qemu_is_too_old(two: TwoHosts, servers: dict[str, str]) -> None:
    server = servers["vgpu"]
    source, target = two.settled(server, "ACTIVE")
    two.says(source, server, "accelsched-guest: ready")
    with pytest.raises(StackError, match=r"has QEMU 7\.2[\d.]*, and to carry a mediated device over takes QEMU 8\.1"):
        two.control.openstack(*_LIVE, server)

    two.control.openstack("server", "migrate", server)
    assert two.settled(server, "VERIFY_RESIZE") == (target, source)
    [gone], [mdev] = two.mdevs(source), two.mdevs(target)
    assert mdev != gone
    assert f"<address uuid='{mdev}'/>" in observe.domain_xml(two.machines[target], server)
    two.says(target, server, "accelsched-guest: ready")
    console = two.console(target, server)
    assert "boot 2" in console  # what was on the disk has come
    assert re.search(rf"accelsched-guest: pci \S+ {VGPU_ID} ", console)
    assert "echoed=hello" in console  # the guest's driver talked to the device there
    assert two.holds(source, server) == (False, True)

    two.control.openstack("server", "resize", "confirm", server)
    two.settled(server, "ACTIVE")
    assert two.mdevs(source) == []
    assert two.holds(source, server) == (False, False)
    two.delete(server)
    assert two.mdevs(target) == []
