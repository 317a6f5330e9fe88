# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The same parts as processes of their own: several API workers, scheduler and agent over RabbitMQ and PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import patience
import pytest
from deployments import Api, answers
from stack.http import free_port

C = "/compute/v2.1"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with databases.fresh("postgresql", tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture(scope="module")
def options(database: str, broker_url: str) -> dict[str, Any]:
    return {
        "DEFAULT": {"transport_url": broker_url},
        "database": {"connection": database},
        "api": {"auth_strategy": "noauth2", "workers": 2},
        "scheduler": {"poll_interval": 1},
        "agent": {
            "host": f"apart-{free_port()}",
            "virt_driver": "simulated",
            "device_drivers": "simulated",
            "report_interval": 1,
            "sync_interval": 5,
        },
    }


@pytest.fixture(scope="module")
def migrated(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    config = tmp_path_factory.mktemp("manage") / "accelsched.conf"
    config.write_text(f"[database]\nconnection = {options['database']['connection']}\n")
    manage = Path(sys.executable).parent / "accelsched-manage"
    subprocess.run([manage, "--config-file", config, "db", "upgrade"], check=True, timeout=patience.LIMIT_S)


def start_api(start_service: Any, options: dict[str, Any], **changes: Any) -> Any:
    port = free_port()
    service = start_service("accelsched-api", {**options, "api": {**options["api"], "bind_port": port}, **changes})
    url = f"http://127.0.0.1:{port}"
    service.wait_for(lambda: answers(url + "/healthcheck"))
    return service, Api(url)


def make_flavor(api: Api, name: str) -> None:
    flavor = {"name": name, "id": name, "vcpus": 1, "ram": 64, "disk": 1}
    assert api.post(f"{C}/flavors", json={"flavor": flavor}).ok
    assert api.post(f"{C}/flavors/{name}/os-extra_specs", json={"extra_specs": {"resources:VGPU": "1"}}).ok


def test_the_parts_work_together_over_the_broker(start_service, options, migrated):
    service, api = start_api(start_service, options)
    scheduler = start_service("accelsched-scheduler", options)
    scheduler.wait_for(lambda: "accelsched-scheduler runs" in scheduler.log.read_text())
    home = scheduler.log.parent
    agent = start_service("accelsched-agent", {**options, "DEFAULT": {**options["DEFAULT"], "state_path": home}})
    patience.wait(lambda: api.get(f"{C}/os-services").json()["services"])
    make_flavor(api, "apart")
    body = {"server": {"name": "one", "flavorRef": "apart", "networks": "none"}}
    server_id = api.post(f"{C}/servers", json=body).json()["server"]["id"]
    patience.wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")
    output = api.post(f"{C}/servers/{server_id}/action", json={"os-getConsoleOutput": {}})
    assert "simulated" in output.json()["output"]
    assert api.delete(f"{C}/servers/{server_id}").status_code == 204
    patience.wait(lambda: api.get(f"{C}/servers/{server_id}").status_code == 404)

    # Both workers' counts, whichever of them is asked.
    for _ in range(20):
        api.get(f"{C}/flavors")
    totals = {line for line in api.get("/metrics").text.splitlines() if 'service="compute",status="200"' in line}
    assert any(float(line.split()[-1]) >= 20 for line in totals)

    # An agent that is gone: its console cannot be read, and the answer says so in time.
    server_id = api.post(f"{C}/servers", json=body).json()["server"]["id"]
    patience.wait(lambda: api.get(f"{C}/servers/{server_id}").json()["server"]["status"] == "ACTIVE")
    assert agent.stop() == 0
    gone = api.post(f"{C}/servers/{server_id}/action", json={"os-getConsoleOutput": {}})
    assert gone.status_code in (503, 504)
    (fault,) = gone.json().values()
    assert "agent" in fault["message"]
    assert scheduler.stop() == 0
    assert service.stop() == 0


def test_servers_are_created_and_deleted_while_the_broker_is_away(start_service, options, migrated):
    nobody = {"DEFAULT": {"transport_url": f"rabbit://guest:guest@127.0.0.1:{free_port()}/"}}
    service, api = start_api(start_service, options, **nobody)
    make_flavor(api, "alone")
    body = {"server": {"name": "one", "flavorRef": "alone", "networks": "none"}}
    created = api.post(f"{C}/servers", json=body)
    assert created.status_code == 202
    server_id = created.json()["server"]["id"]
    assert api.get(f"{C}/servers/{server_id}").json()["server"]["OS-EXT-STS:task_state"] == "scheduling"
    assert api.delete(f"{C}/servers/{server_id}").status_code == 204
    assert api.get(f"{C}/servers/{server_id}").status_code == 404
    assert service.stop() == 0


def test_a_wrong_configuration_stops_it_with_one_line_that_names_the_option(start_service, options, tmp_path):
    for changes, name in (
        ({"api": {"auth_strategy": "noauth2", "bind_host": "0.0.0.0"}}, "auth_strategy"),
        ({"api": {"auth_strategy": "magic"}}, "auth_strategy"),
        ({"database": {"connection": "nonsense"}}, "connection"),
        ({"database": {"connection": f"sqlite:///{tmp_path}/empty.sqlite"}}, "accelsched-manage db upgrade"),
    ):
        service = start_service("accelsched-api", {**options, **changes})
        assert service.process.wait(patience.LIMIT_S) == 2
        (line,) = [line for line in service.log.read_text().splitlines() if line.startswith("accelsched-api:")]
        assert name in line
