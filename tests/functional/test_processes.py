# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes as an operator runs them: together, apart, killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brokers
import databases
import forked
import patience
import pytest
import requests
from stack import http

C = "/compute/v2.1"


class Deployment:
    """HTTP to one deployment as its operator."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.headers.update({"X-Auth-Token": "admin", "OpenStack-API-Version": "compute 2.96"})

    def get(self, path: str) -> Any:
        response = self.session.get(self.url + path, timeout=patience.LIMIT_S)
        assert response.status_code == 200, response.text
        return response.json()

    def is_up(self) -> bool:
        return http.answers(f"{self.url}/healthcheck")

    def make_flavor(self) -> None:
        flavor = {"name": "vgpu", "id": "vgpu", "vcpus": 1, "ram": 64, "disk": 1}
        self.session.post(f"{self.url}{C}/flavors", json={"flavor": flavor}).raise_for_status()
        specs = {"extra_specs": {"resources:VGPU": "1"}}
        self.session.post(f"{self.url}{C}/flavors/vgpu/os-extra_specs", json=specs).raise_for_status()

    def create(self, count: int) -> None:
        server = {"name": "s", "flavorRef": "vgpu", "networks": "none", "min_count": count, "max_count": count}
        response = self.session.post(f"{self.url}{C}/servers", json={"server": server}, timeout=patience.LIMIT_S)
        assert response.status_code == 202, response.text

    def states(self) -> list[str]:
        return [server["status"] for server in self.get(f"{C}/servers/detail?limit=1000")["servers"]]

    def delete_all(self) -> None:
        for server in self.get(f"{C}/servers?limit=1000")["servers"]:
            self.session.delete(f"{self.url}{C}/servers/{server['id']}", timeout=patience.LIMIT_S).raise_for_status()

    def vgpus_used(self) -> int:
        used = 0
        for provider in self.get("/placement/resource_providers")["resource_providers"]:
            used += self.get(f"/placement/resource_providers/{provider['uuid']}/usages")["usages"].get("VGPU", 0)
        return used


def options(port: int, **groups: dict[str, object]) -> dict[str, dict[str, object]]:
    base: dict[str, dict[str, object]] = {
        "api": {"auth_strategy": "noauth2", "bind_port": port},
        "agent": {
            "host": "sim",
            "virt_driver": "simulated",
            "device_drivers": "simulated",
            "report_interval": 1,
            "sync_interval": 1,
        },
        "devices": {"simulated_gpus": "8"},
        "scheduler": {"poll_interval": 0.5, "lease_seconds": 2},
    }
    for group, values in groups.items():
        base[group] = {**base.get(group, {}), **values}
    return base


def kill(service: Any) -> None:
    service.process.kill()
    service.process.wait()


def test_a_stand_alone_process_killed_again_and_again_loses_and_leaks_nothing(start_service, tmp_path: Path) -> None:
    port = http.free_port()
    deployment = Deployment(port)
    settings = options(port, devices={"simulated_gpus": "40"})

    def start() -> Any:
        service = start_service(
            "accelsched-standalone", settings, "--state-dir", str(tmp_path / "state"), directory=tmp_path
        )
        service.wait_for(deployment.is_up)
        return service

    service = start()
    deployment.make_flavor()
    patience.wait(lambda: deployment.get(f"{C}/os-services")["services"])
    deployment.create(30)
    for pause in (0.0, 0.3, 0.6):
        time.sleep(pause)
        kill(service)
        service = start()
    patience.wait(lambda: deployment.states() == ["ACTIVE"] * 30)
    assert deployment.vgpus_used() == 30
    deployment.delete_all()
    kill(service)
    service = start()
    patience.wait(lambda: deployment.states() == [])
    assert deployment.vgpus_used() == 0
    deployment.create(5)
    # A clean stop in the middle loses nothing either.
    assert service.stop() == 0
    service = start()
    patience.wait(lambda: deployment.states() == ["ACTIVE"] * 5)
    assert service.stop() == 0


@pytest.fixture
def broker() -> Iterator[str]:
    """Return the URL of a virtual host that is this test's alone: a killed process leaves messages behind."""
    with brokers.fresh() as url:
        yield url


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_processes_apart_place_what_a_killed_scheduler_left(
    kind: str, start_service, broker: str, tmp_path: Path
) -> None:
    """Two API workers, two schedulers and an agent for eight hosts, on a database server and RabbitMQ."""
    port = http.free_port()
    deployment = Deployment(port)
    with databases.fresh(kind, tmp_path) as url:
        settings = options(
            port,
            DEFAULT={"transport_url": broker, "state_path": tmp_path / "state"},
            database={"connection": url},
            api={"workers": 2},
        )
        config = tmp_path / "manage.conf"
        config.write_text(f"[database]\nconnection = {url}\n")
        manage = [Path(sys.executable).parent / "accelsched-manage", "--config-file", config, "db", "upgrade"]
        subprocess.run(manage, check=True, capture_output=True)

        api = start_service("accelsched-api", settings, directory=tmp_path)
        doomed = start_service("accelsched-scheduler", settings, directory=tmp_path)
        other = start_service("accelsched-scheduler", settings, directory=tmp_path)
        agent = start_service("accelsched-agent", settings, "--simulate", "8", directory=tmp_path)
        api.wait_for(deployment.is_up)
        agent.wait_for(lambda: len(deployment.get(f"{C}/os-hypervisors")["hypervisors"]) == 8)
        deployment.make_flavor()
        for _ in range(8):
            deployment.create(5)
        kill(doomed)
        patience.wait(lambda: deployment.states() == ["ACTIVE"] * 40)
        assert deployment.vgpus_used() == 40
        deployment.delete_all()
        patience.wait(lambda: deployment.states() == [])
        assert deployment.vgpus_used() == 0
        for service in (agent, other, api):
            assert service.stop() == 0


@pytest.mark.parametrize(
    ("command", "arguments", "text", "named"),
    [
        (
            "accelsched-standalone",
            [],
            "[standalone]\nservices=agent\n[agent]\nvirt_driver = nosuch\n",
            "[agent] virt_driver",
        ),
        ("accelsched-standalone", [], "[agent]\nsync_interval = soon\n", "[agent] sync_interval"),
        (
            "accelsched-standalone",
            [],
            "[agent]\nuser = nobody\n",
            "[agent] user: accelsched-standalone does not obey it",
        ),
        ("accelsched-standalone", [], "[scheduler]\nfilters = NoSuchFilter\n", "[scheduler] filters"),
        ("accelsched-standalone", [], "[api]\nauth_strategy = trust\n", "[api] auth_strategy"),
        ("accelsched-standalone", [], "[standalone]\nservices = api,dashboard\n", "[standalone] services"),
        ("accelsched-standalone", [], "[database]\nconnection = nosuch://x\n", "[database] connection"),
        ("accelsched-standalone", [], "[database]\nmax_pool_size = many\n", "[database] max_pool_size"),
        ("accelsched-standalone", [], "[oslo_messaging_rabbit]\nssl = 7\n", "[oslo_messaging_rabbit] ssl"),
        (
            "accelsched-standalone",
            [],
            "[api]\nauth_strategy = noauth2\n[oslo_policy]\npolicy_file = /etc/os-release\n",
            "[oslo_policy] policy_file",
        ),
        ("accelsched-standalone", [], "[DEFAULT]\ntransport_url = nosuch://x\n", "[DEFAULT] transport_url"),
        ("accelsched-standalone", ["--bind", "0.0.0.0:0"], "", "--bind"),
        (
            "accelsched-standalone",
            ["--bind", "0.0.0.0:8999"],
            "[api]\nauth_strategy = noauth2\n",
            "allow_public_noauth2",
        ),
        ("accelsched-scheduler", [], "", "[database] connection"),
        (
            "accelsched-scheduler",
            [],
            "[database]\nconnection = postgresql+psycopg2://u@127.0.0.1:1/x\n",
            "[database] connection",
        ),
        ("accelsched-api", [], "[database]\nconnection = sqlite:///empty.sqlite\n", "accelsched-manage db upgrade"),
        ("accelsched-agent", [], '[devices]\npci_device_spec = {"vendor_id": "1234"}\n', "[devices] pci_device_spec"),
        ("accelsched-agent", [], "[agent]\nhost = a/b\n", "[agent] host"),
        ("accelsched-manage", ["db", "upgrade"], "[database]\nconnection = what\n", "[database] connection"),
    ],
)
def test_a_wrong_option_stops_the_process_with_one_line_that_names_it(
    command: str, arguments: list[str], text: str, named: str, tmp_path: Path
) -> None:
    config = tmp_path / "wrong.conf"
    config.write_text(text)
    if command == "accelsched-standalone":
        arguments = [*arguments, "--state-dir", str(tmp_path / "state")]
    ended = forked.ended(command, "--config-file", config, *arguments, environment=os.environ, where=tmp_path)
    lines = [line for line in ended.err.splitlines() if line.startswith(command)]
    assert ended.status == 2
    assert len(lines) == 1
    assert named in lines[0]
    assert "Traceback" not in ended.err


def test_an_agent_takes_no_orders_from_another_control_plane(start_service, broker: str, tmp_path: Path) -> None:
    """One that is pointed at an empty database by mistake must not remove the servers of the right one."""
    port = http.free_port()
    deployment = Deployment(port)

    def control_plane(database: str) -> Any:
        settings = options(
            port,
            DEFAULT={"transport_url": broker},
            standalone={"services": "api,scheduler"},
            database={"connection": f"sqlite:///{tmp_path / database}"},
        )
        arguments = ("--state-dir", str(tmp_path / "control"))
        service = start_service("accelsched-standalone", settings, *arguments, directory=tmp_path)
        service.wait_for(deployment.is_up)
        return service

    settings = options(port, DEFAULT={"transport_url": broker, "state_path": tmp_path / "agent"})
    right = control_plane("right.sqlite")
    agent = start_service("accelsched-agent", settings, directory=tmp_path)
    patience.wait(lambda: deployment.get(f"{C}/os-services")["services"])
    deployment.make_flavor()
    deployment.create(3)
    patience.wait(lambda: deployment.states() == ["ACTIVE"] * 3)
    assert right.stop() == 0

    wrong = control_plane("wrong.sqlite")
    patience.wait(lambda: "belongs to control plane" in agent.log.read_text())
    assert deployment.get(f"{C}/os-services")["services"] == []
    assert wrong.stop() == 0

    right = control_plane("right.sqlite")
    patience.wait(lambda: [s["state"] for s in deployment.get(f"{C}/os-services")["services"]] == ["up"])
    assert "was removed" not in agent.log.read_text()
    assert deployment.states() == ["ACTIVE"] * 3
    for service in (agent, right):
        assert service.stop() == 0
