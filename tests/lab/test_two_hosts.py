# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that go from one machine to another, with the devices that each has. Last, for a second host stays."""

from __future__ import annotations

import re

import pytest
from labvm import observe
from labvm.agent import PORTS, USER, VGPU_ID, Agent
from labvm.control import ControlPlane, wait_for
from labvm.machine import GPUS, PEERS, Machine
from labvm.servers import LIVE_MIGRATE

_GUEST_S = 600.0
_MOVED_S = 600.0
_OVER = ("completed", "error", "cancelled")  # a live migration's status, as Nova names it
_INSTANCES = "/var/lib/accelsched/instances"


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
        return host, next(other for other in PEERS if other != host)

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

    def all_answer(self, host: str, server: str, devices: int) -> None:
        """Wait until so many devices have answered the guest in one of its next rounds over all of them.

        It gives each a few seconds, which on a busy machine is not always enough.
        """
        begun = len(self.says(host, server, "tick at"))

        def look() -> bool:
            rounds = self.console(host, server).split("tick at")[begun + 1 : -1]
            return any(len(re.findall(r"mtty \S+ tty=\S+ echoed=hello", told)) == devices for told in rounds)

        wait_for(look, _GUEST_S, f"{devices} devices to answer {server}", interval=1.0)

    def share_ports(self) -> None:
        """Have the GPUs' types share what they have, where one type would exclude the other."""
        costs = ("--budget", str(PORTS), "--cost", "VGPU=1", "--cost", "CUSTOM_VGPU_LARGE=2")
        gpus = {f"{host}_pci_{re.sub('[:.]', '_', address)}" for host in PEERS for address in GPUS}
        for provider in self.control.get("/placement/resource_providers")["resource_providers"]:
            if provider["name"] in gpus:
                self.control.openstack("accel", "capacity", "rule", "set", *costs, provider["uuid"])

    def migrate_live(self, server: str) -> None:
        """Have a server go while it runs, and wait until it has, or has not."""
        self.control.openstack(*LIVE_MIGRATE, server)

        def look() -> str | None:
            [migration] = self.control.get(f"/compute/v2.1/os-migrations?instance_uuid={server}")["migrations"]
            status: str = migration["status"]
            return status if status in _OVER else None

        assert wait_for(look, _MOVED_S, "the migration to be over") == "completed"

    def mdevs(self, host: str) -> list[str]:
        return list(observe.own_mdevs(self.machines[host]))

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
def two(control_plane: ControlPlane, peer_vms: list[Machine], peers: list[Agent]) -> TwoHosts:
    assert all(agent.runs() for agent in peers)
    return TwoHosts(control_plane, dict(zip(PEERS, peer_vms, strict=True)))


@pytest.fixture(scope="module")
def server(two: TwoHosts, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A server with vGPUs of two types, from one GPU; its guest uses them again and again."""
    tick = tmp_path_factory.mktemp("user-data") / "tick"
    tick.write_text("#tick\n")
    card = "trait1:CUSTOM_PCI_DEVICE_1234_11E8=required"  # not the one whose virtual functions are the parents
    asked = ("resources1:VGPU=1", "resources1:CUSTOM_VGPU_LARGE=1", card)
    two.flavor("lab-moves", *(word for text in asked for word in ("--property", text)))
    two.share_ports()
    return two.create("moves", "--user-data", str(tick), "--config-drive", "true")


def test_the_machines_reach_each_others_libvirt_and_are_two(two: TwoHosts) -> None:
    for host, machine in two.machines.items():
        other = next(two.machines[name] for name in PEERS if name != host).place
        uri = f"qemu+tcp://{other.address}/system"
        assert machine.channel.check(["virsh", "-c", uri, "hostname"]).strip() == other.host


@pytest.mark.way("agent that is not root, by sudo", "one of the two hosts of these moves; sudo starts its helper")
def test_the_agent_of_one_host_has_its_helper_by_sudo(two: TwoHosts, peers: list[Agent]) -> None:
    assert peers[1].users() == [USER]
    # It is nobody's child any more.
    two.machines[PEERS[1]].channel.check(["pgrep", "-u", "root", "-f", "privsep-helper --config-file"])


@pytest.mark.way("mediated devices of two types on one function", "both answer the guest; the types share its capacity")
def test_one_gpu_gives_a_server_vgpus_of_two_types(two: TwoHosts, server: str) -> None:
    host, _ = two.settled(server, "ACTIVE")
    two.all_answer(host, server, 2)

    machine = two.machines[host]
    made = observe.own_mdevs(machine)
    assert sorted(observe.mdev_type(machine, uuid) for uuid in made) == ["labgpu-1", "labgpu-2"]
    [gpu] = set(made.values())
    assert observe.available_instances(machine, gpu, "labgpu-1") == PORTS - 1 - 2


@pytest.mark.way(
    "live migration with mediated devices", "the guest runs on and goes on talking to them; they are of that host then"
)
def test_a_server_goes_with_its_vgpus_while_its_guest_runs_on(two: TwoHosts, server: str) -> None:
    source, target = two.settled(server, "ACTIVE")
    before = two.mdevs(source)

    two.migrate_live(server)
    assert two.settled(server, "ACTIVE") == (target, source)
    two.all_answer(target, server, 2)
    assert "accelsched-guest: kernel" not in two.console(target, server)  # it was not booted again
    assert observe.domains(two.machines[target])[server] == "running"
    mdevs = two.mdevs(target)
    assert len(mdevs) == 2
    assert not set(mdevs) & set(before)
    xml = observe.domain_xml(two.machines[target], server)
    assert all(f"<address uuid='{mdev}'/>" in xml for mdev in mdevs)

    wait_for(lambda: two.holds(source, server) == (False, False), _MOVED_S, "the source to be rid of it")
    assert two.mdevs(source) == []


@pytest.mark.way(
    "cold migration with mediated devices", "boots from its disk on the other host, with devices of that one"
)
def test_a_server_goes_with_a_shutdown_to_other_vgpus(two: TwoHosts, server: str) -> None:
    source, target = two.settled(server, "ACTIVE")
    two.control.openstack("server", "migrate", server)
    assert two.settled(server, "VERIFY_RESIZE") == (target, source)
    gone, made = two.mdevs(source), two.mdevs(target)
    assert (len(gone), len(made)) == (2, 2)
    assert not set(gone) & set(made)
    two.says(target, server, "accelsched-guest: ready")
    console = two.console(target, server)
    assert "boot 2" in console  # what was on the disk has come
    assert len(re.findall(rf"accelsched-guest: pci \S+ {VGPU_ID} ", console)) == 2
    two.all_answer(target, server, 2)
    assert two.holds(source, server) == (False, True)

    two.control.openstack("server", "resize", "confirm", server)
    two.settled(server, "ACTIVE")
    assert two.mdevs(source) == []
    assert two.holds(source, server) == (False, False)
    two.delete(server)
    assert two.mdevs(target) == []
