# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole cloud of processes apart, on real libvirt, any of which can be killed or held at a named point."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import patience
import requests
import sqlalchemy
from brokers import Node
from deployments import Api, Service, answers
from image_service import ImageService
from lxml import etree
from stack import http

from accelsched.agent.virt.libvirt import plugs, storage
from accelsched.agent.virt.libvirt.domain import NAMESPACE
from accelsched.failpoints import HOLD, Point
from accelsched.message_faults import Fault

A, C = "/accelerator/v2", "/compute/v2.1"
HOSTS = ("one", "two")
_DONE = (200, 202, 204)
_MARK, _MARK_AT = "0x5a", "4M 3M"


class Cloud:
    """An API, a scheduler and an agent for each of two hosts that share this machine's libvirt.

    Whatever dies is started again, as an init system would do it.
    """

    def __init__(self, directory: Path, database: str, broker: Node, images: ImageService, hypervisor: Any) -> None:
        self._hypervisor = hypervisor
        # It leads nowhere and has no DHCP, which would need dnsmasq.
        self.network = f"accelsched-faults-{uuid.uuid4().hex[:8]}"
        hypervisor.networkCreateXML(f"<network><name>{self.network}</name><bridge/></network>")
        self.broker = broker
        self.database = sqlalchemy.create_engine(database)
        self._armed = directory / "fail-points"
        self._armed.mkdir()
        # Where QEMU, which runs as a user of its own, gets at it.
        self.states = {host: Path("/var/tmp") / f"accelsched-faults-{uuid.uuid4().hex[:8]}" for host in HOSTS}
        port = http.free_port()
        # From 2.95 on a server that is evacuated is stopped where it gets; before, it runs.
        self.api = Api(f"http://127.0.0.1:{port}", **{"OpenStack-API-Version": "compute 2.94"})
        self._options: dict[str, dict[str, object]] = {
            "DEFAULT": {"transport_url": broker.url},
            "database": {"connection": database},
            "api": {"auth_strategy": "noauth2", "bind_port": port, "workers": 1},
            "scheduler": {"poll_interval": 0.5, "lease_seconds": 2},
            "glance": {"auth_type": "none", "endpoint_override": images.url},
        }
        self._directory = directory
        self._lost: str | None = None
        self.image = images.add(b"\0" * 1024 * 1024, "raw")["id"]
        self.services: dict[str, Service] = {}
        config = directory / "manage.conf"
        config.write_text(f"[database]\nconnection = {database}\n")
        manage = [Path(sys.executable).parent / "accelsched-manage", "--config-file", config, "db", "upgrade"]
        subprocess.run(manage, check=True, capture_output=True)
        self._start("accelsched-api", "api", self._options)
        self._start("accelsched-scheduler", "scheduler", self._options)
        for host in HOSTS:
            self._start("accelsched-agent", host, self._of_agent(host))
        self.services["api"].wait_for(self._answers)
        self.services["two"].wait_for(lambda: self.hosts_up() == set(HOSTS))
        self._make_flavor("vgpu", 64, 1)
        self._make_flavor("larger", 96, 2)
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def _start(self, command: str, name: str, options: dict[str, dict[str, object]]) -> None:
        environment = {"ACCELSCHED_FAIL_POINTS": str(self._armed)}
        self.services[name] = Service(command, self._directory / name, options, [], environment)

    def _of_agent(self, host: str) -> dict[str, dict[str, object]]:
        state = {"transport_url": self._options["DEFAULT"]["transport_url"], "state_path": self.states[host]}
        return {
            "DEFAULT": state,
            "agent": {
                "host": host,
                "device_drivers": "simulated",
                "report_interval": 0.5,
                "sync_interval": 0.5,
                "shutdown_timeout": 0,
            },
            "devices": {"simulated_gpus": "2"},
            "libvirt": {"virt_type": "qemu", "live_migration_uri": "qemu+tcp://%s:1/system", "network": self.network},
            "glance": self._options["glance"],
        }

    def _make_flavor(self, name: str, ram_mb: int, size: int) -> None:
        """Make a flavor of so much memory, and so many GiB of disk and vGPUs."""
        flavor = {"name": name, "id": name, "vcpus": 1, "ram": ram_mb, "disk": size}
        self.api.post(f"{C}/flavors", json={"flavor": flavor}).raise_for_status()
        specs = {"extra_specs": {"resources:VGPU": str(size)}}
        self.api.post(f"{C}/flavors/{name}/os-extra_specs", json=specs).raise_for_status()

    # --- faults -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def killed_at(self, point: Point) -> Iterator[None]:
        """Have whoever reaches a point first be killed there, and start it again."""
        armed = self._armed / point
        armed.touch()
        yield
        patience.wait(lambda: not armed.exists(), told=lambda: f"nobody came to {point}")
        patience.wait(self._answers)

    @contextlib.contextmanager
    def held_at(self, point: Point, act: Callable[[], object]) -> Iterator[None]:
        """Act, and have whoever reaches a point first wait there while something is broken.

        :param act: what a user does; it may well be the one who waits
        """
        armed, reached = self._armed / point, self._armed / f"{point}.reached"
        reached.unlink(missing_ok=True)  # of somebody who was killed there
        # It has what it says before it has its name.
        (self._armed / "new").write_text(HOLD)
        (self._armed / "new").rename(armed)
        with concurrent.futures.ThreadPoolExecutor(1) as user:
            acting = user.submit(act)
            try:
                patience.wait(reached.exists, told=lambda: f"nobody came to {point}")
                yield
            finally:
                armed.unlink(missing_ok=True)
                reached.unlink(missing_ok=True)
            acting.result()

    @contextlib.contextmanager
    def faulty_messages(self, *faults: Fault) -> Iterator[None]:
        """Have every other message suffer one of these faults; in the end, what is late arrives."""
        named = self._armed / "messages"
        named.write_text(" ".join(faults))
        try:
            yield
        finally:
            named.unlink()
            patience.wait(lambda: not list(self._armed.glob("late.*")))

    def cut_database(self) -> None:
        """End every connection to the database, whatever is being done over it."""
        with self.database.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def _supervise(self) -> None:
        """Start what has died, all the time; gunicorn does so for its own."""
        while not self._closing.wait(0.1):
            for name, service in self.services.items():
                if name != self._lost and service.process.poll() is not None:
                    service.start()

    def _answers(self) -> bool:
        return answers(f"{self.api.url}/healthcheck")

    @contextlib.contextmanager
    def lost(self, host: str) -> Iterator[None]:
        """Have a host lose its power, and get it again afterwards; an operator tells of both."""
        self.cut_power(host)
        self._force_down(host, True)
        try:
            yield
        finally:
            self.restore(host)

    def cut_power(self, host: str) -> None:
        """Have a host lose its power, of which nobody tells."""
        self._lost = host
        self.services[host].process.kill()
        self.services[host].process.wait()
        self._remove_domains(host)  # the other host's libvirt, which takes over the server, is the same one here

    def restore(self, host: str) -> None:
        """Have a host that was lost get its power again."""
        self._lost = None
        self._force_down(host, False)
        patience.wait(lambda: self.hosts_up() == set(HOSTS))

    def _force_down(self, host: str, down: bool) -> None:
        self.api.put(self._service(host), json={"forced_down": down}).raise_for_status()

    def _service(self, host: str) -> str:
        (service,) = self.api.get(f"{C}/os-services?binary=nova-compute&host={host}").json()["services"]
        return f"{C}/os-services/{service['id']}"

    def forget(self, host: str) -> None:
        """Have it known that a host is no more."""
        self.api.delete(self._service(host)).raise_for_status()

    def _remove_domains(self, host: str) -> None:
        for name in self.domains(host):
            domain = self._hypervisor.lookupByUUIDString(name)
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)

    # --- what users do ------------------------------------------------------------------------------------------

    def ask(self, path: str, body: dict[str, Any], answers: Collection[int] = _DONE) -> None:
        """Send a request; that it gets no answer because the API died is part of the test.

        :param answers: status of an answer, one of these
        """
        self._send(lambda: self.api.post(C + path, json=body), answers)

    @staticmethod
    def _send(send: Callable[[], requests.Response], answers: Collection[int]) -> None:
        try:
            response = send()
        except requests.ConnectionError:
            return
        assert response.status_code in answers, response.text

    def create(self, name: str, answers: Collection[int] = _DONE, **more: Any) -> None:
        """Ask for a server with a vGPU."""
        server = {"networks": "none", **more, "name": name, "flavorRef": "vgpu", "imageRef": self.image}
        self.ask("/servers", {"server": server}, answers)

    def act(self, server: str, action: str, arguments: Any = None, answers: Collection[int] = _DONE) -> None:
        """Ask for an action."""
        self.ask(f"/servers/{server}/action", {action: arguments}, answers)

    def delete(self, server: str) -> None:
        """Want a server no longer; it may have gone just now."""
        self._send(lambda: self.api.delete(f"{C}/servers/{server}"), (204, 404))

    def attach(self, server: str) -> None:
        """Ask for another vGPU for a server that is there."""
        asked = {"accelerator": {"resource_class": "VGPU"}}
        self._send(lambda: self.api.post(f"/v1/servers/{server}/accelerators", json=asked), _DONE)

    def detach(self, server: str) -> None:
        """Want what was attached to a server no longer."""
        (accelerator,) = self._attached(server)
        self._send(lambda: self.api.delete(f"/v1/servers/{server}/accelerators/{accelerator}"), _DONE)

    def _attached(self, server: str) -> dict[str, str]:
        """Return the state of each accelerator that was attached to a server, by its id."""
        listed = self.api.get(f"/v1/servers/{server}/accelerators").json()["accelerators"]
        return {each["id"]: each["state"] for each in listed if each["id"] is not None}

    def make_request(self) -> str:
        """Return an accelerator request for a vGPU."""
        profile = [{"name": "vgpu", "groups": [{"resources:VGPU": 1}]}]
        assert self.api.post(f"{A}/device_profiles", json=profile).status_code in (201, 409)
        (made,) = self.api.post(f"{A}/accelerator_requests", json={"device_profile_name": "vgpu"}).json()["arqs"]
        return str(made["uuid"])

    def bind(self, request: str, server: str) -> None:
        """Ask for an accelerator request to be bound to a server, on the device that it has already."""
        host = self.wait_for("ACTIVE")["OS-EXT-SRV-ATTR:host"]
        (held,) = self.api.get(f"/v1/servers/{server}/accelerators").json()["accelerators"]
        values = {"hostname": host, "instance_uuid": server, "device_rp_uuid": held["provider_uuid"]}
        patch = [{"path": f"/{name}", "op": "add", "value": value} for name, value in values.items()]
        self._send(lambda: self.api.patch(f"{A}/accelerator_requests", json={request: patch}), _DONE)

    def delete_request(self, request: str) -> None:
        """Want an accelerator request no longer."""
        self._send(lambda: self.api.delete(f"{A}/accelerator_requests/{request}"), (204,))

    def requests(self) -> dict[str, str]:
        """Return the state of each accelerator request."""
        return {one["uuid"]: one["state"] for one in self.api.get(f"{A}/accelerator_requests").json()["arqs"]}

    def one(self, **more: Any) -> str:
        """Return a server that runs."""
        self.create("s", **more)
        return str(self.wait_for("ACTIVE")["id"])

    # --- what there is ------------------------------------------------------------------------------------------

    def hosts_up(self) -> set[str]:
        """Return the hosts that are alive, as operators see it."""
        services = self.api.get(f"{C}/os-services?binary=nova-compute").json()["services"]
        return {service["host"] for service in services if service["state"] == "up"}

    def servers(self) -> list[dict[str, Any]]:
        """Return all servers."""
        listed: list[dict[str, Any]] = self.api.get(f"{C}/servers/detail").json()["servers"]
        return listed

    def wait_for(self, status: str, task: str | None = None, **more: Any) -> dict[str, Any]:
        """Return the only server, once its status is this and nothing is being done about it."""

        def there() -> dict[str, Any] | None:
            (server,) = self.servers()
            wanted = {"status": status, "OS-EXT-STS:task_state": task, **more}
            return server if all(server[key] == value for key, value in wanted.items()) else None

        server: dict[str, Any] = patience.wait(there, told=self.servers)
        return server

    def migrations(self, server: str) -> list[str]:
        """Return how a server's migrations stand, the newest first."""
        answer = self.api.get(f"{C}/os-migrations?instance_uuid={server}")
        return [migration["status"] for migration in answer.json()["migrations"]] if answer.ok else []

    def events(self, server: str) -> list[dict[str, Any]]:
        """Return what happened for what was done last to a server, the newest first."""
        of_server = f"{C}/servers/{server}/os-instance-actions"
        last = self.api.get(of_server).json()["instanceActions"][0]["request_id"]
        events: list[dict[str, Any]] = self.api.get(f"{of_server}/{last}").json()["instanceAction"]["events"]
        return events

    def domains(self, host: str) -> dict[str, bool]:
        """Return the domains whose files are below a host's state, and whether they run."""
        found = {}
        for domain in self._hypervisor.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):  # it went between the two questions
                if f"{self.states[host]}/" in domain.XMLDesc():
                    found[domain.UUIDString()] = bool(domain.isActive())
        return found

    def interfaces(self, server: str) -> list[tuple[str, str]]:
        """Return the network and the MAC address of each interface of a server's domain."""
        domain = etree.fromstring(self._hypervisor.lookupByUUIDString(server).XMLDesc())
        return [
            (str(interface.find("source").get("network")), str(interface.find("mac").get("address")))
            for interface in domain.iterfind("devices/interface")
        ]

    def directories(self, host: str) -> set[str]:
        """Return the servers that have files on a host."""
        return {path.name for path in (self.states[host] / "instances").iterdir()} - {"_base"}

    def _disk(self, server: str, host: str) -> Path:
        return self.states[host] / "instances" / server / "disk"

    def mark(self, server: str) -> None:
        """Write something on the disk of a server that runs, as its guest would."""
        domain = self._hypervisor.lookupByUUIDString(server)
        monitor = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        for command in (f"write -P {_MARK} {_MARK_AT}", "flush"):
            words = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "{command}"'
            said = libvirt_qemu.qemuMonitorCommand(domain, words, monitor)
            assert "rror" not in said, said

    def marked(self, server: str, host: str) -> bool:
        """Tell whether that is on the disk of a server that a host has, whether it runs there or not."""
        command = ["qemu-io", "-r", "-U", "-f", "qcow2", "-c", f"read -P {_MARK} {_MARK_AT}"]
        done = subprocess.run([*command, self._disk(server, host)], check=True, capture_output=True, text=True)
        return "verification failed" not in done.stdout

    def disk_gb(self, server: str, host: str) -> int:
        """Return the size that a server's disk has on a host, GiB."""
        return storage.header(self._disk(server, host)).virtual_size // storage.GIB

    def held(self) -> dict[str, int]:
        """Return the units that consumers hold, by resource class."""
        query = (
            "SELECT rc.name, sum(a.used) FROM allocations a"
            " JOIN resource_classes rc ON rc.id = a.class_id GROUP BY rc.name"
        )
        with self.database.connect() as connection:
            return {name: int(used) for name, used in connection.exec_driver_sql(query)}

    def assert_attached(self, server: str) -> None:
        """A server that runs has one vGPU more than its flavor says, and its domain does."""
        patience.wait(lambda: list(self._attached(server).values()) == ["attached"], told=self.everything)
        (accelerator,) = self._attached(server)
        assert self._plugs(server) == {accelerator: True}
        self.wait_for("ACTIVE")
        assert self.held() == {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1, "VGPU": 2}

    def assert_detached(self, server: str) -> None:
        """A server that runs has what its flavor says, nothing besides, and so does its domain."""
        patience.wait(lambda: not self._attached(server), told=self.everything)
        assert self._plugs(server) == {}
        self.assert_runs()

    def _plugs(self, server: str) -> Mapping[str, bool]:
        """Return what a server's domain says that was plugged into it, and whether it is there."""
        domain = self._hypervisor.lookupByUUIDString(server)
        return plugs.plugs_of(etree.fromstring(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)))

    def assert_runs(self) -> None:
        """One server runs on the host that is told, holds what its flavor says, and there is nothing else."""
        self._assert_is("ACTIVE", runs=True)

    def assert_stopped(self) -> None:
        """One server is there, and off, and holds what its flavor says, and there is nothing else."""
        self._assert_is("SHUTOFF", runs=False)

    def assert_suspended(self) -> None:
        """One server is there, and suspended, and holds what its flavor says, and there is nothing else."""
        self._assert_is("SUSPENDED", runs=False)

    def _assert_is(self, status: str, *, runs: bool) -> None:
        server = self.wait_for(status)
        host = server["OS-EXT-SRV-ATTR:host"]
        there = {each: self.domains(each) for each in HOSTS if each != self._lost}
        assert there == {each: {server["id"]: runs} if each == host else {} for each in there}
        assert self.directories(host) == {server["id"]}
        assert self.held() == {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1, "VGPU": 1}

    def nothing_left(self) -> bool:
        """Tell whether there is nothing of any server anywhere."""
        return not (
            self.servers() or self.held() or any(self.domains(host) or self.directories(host) for host in HOSTS)
        )

    def assert_nothing_left(self) -> None:
        """There is nothing of any server anywhere, soon."""
        patience.wait(self.nothing_left, told=self.everything)

    def everything(self) -> object:
        """Return all there is, for a test that failed."""
        on_hosts = {host: (self.domains(host), self.directories(host)) for host in HOSTS}
        return self.servers(), self.held(), on_hosts

    def close(self) -> None:
        """Stop all processes; remove what tests that failed left."""
        self._closing.set()
        self._supervisor.join()
        for service in reversed(self.services.values()):
            if service.process.poll() is None:
                service.stop()
        self.database.dispose()
        for host in HOSTS:
            self._remove_domains(host)
            shutil.rmtree(self.states[host], ignore_errors=True)
        self._hypervisor.networkLookupByName(self.network).destroy()
