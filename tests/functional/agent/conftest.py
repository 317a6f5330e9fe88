# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""An agent over in-process messaging, and the peers it needs: a control plane, an image service, libvirt."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirtd
import patience
import pytest
from image_service import ImageService
from oslo_config import cfg

from accelsched import conf as options
from accelsched import rpc, wire
from accelsched.agent.manager import Agent

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "agent"))

from fake_controller import FakeController
from fake_sysfs import FakeSysfs


def new_assignment(host: str, **changes: Any) -> wire.Assignment:
    assignment: wire.Assignment = {
        "server_uuid": str(uuid.uuid4()),
        "host": host,
        "desired": "active",
        "name": "test server",
        "project_id": "p" * 32,
        "user_id": "u" * 32,
        "flavor": {"name": "small", "vcpus": 1, "ram_mb": 192, "disk_gb": 0, "extra_specs": {}},
        "image": None,
        "devices": [],
        "metadata": {"role": "test"},
        "user_data": None,
        "config_drive": False,
        "created_at": "2026-11-24T12:00:00Z",
    }
    assignment.update(changes)  # type: ignore[typeddict-item]
    return assignment


def new_options(state_path: Path, *files: Path, **agent: Any) -> cfg.ConfigOpts:
    conf = options.new()
    options.parse(conf, [argument for file in files for argument in ("--config-file", str(file))], "test")
    conf.set_override("state_path", str(state_path))
    conf.set_override("transport_url", "fake://")
    for name, value in {"report_interval": 0.2, "sync_interval": 0.5, "host": "node1", **agent}.items():
        conf.set_override(name, value, group="agent")
    return conf


@pytest.fixture
def assignment_for() -> Callable[..., wire.Assignment]:
    return new_assignment


@pytest.fixture
def options_for() -> Callable[..., cfg.ConfigOpts]:
    return new_options


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSysfs:
    tree = FakeSysfs(tmp_path / "sys")
    monkeypatch.setattr("accelsched.agent.devices.sysfs.write", tree.write)
    return tree


@pytest.fixture
def images() -> Iterator[ImageService]:
    service = ImageService()
    yield service
    service.stop()


@pytest.fixture
def control_plane() -> Iterator[Callable[[cfg.ConfigOpts], Any]]:
    """Returns a function that starts a fake controller and yields it with a function that starts agents."""
    servers: list[rpc.Server] = []
    agents: list[Agent] = []

    def start(conf: cfg.ConfigOpts) -> tuple[FakeController, Callable[..., Any]]:
        transport = rpc.transport(conf)
        controller = FakeController()
        server = rpc.serve(transport, rpc.CONTROLLER_TOPIC, "test", controller)
        server.start()
        servers.append(server)

        @contextmanager
        def agent(conf: cfg.ConfigOpts, **arguments: Any) -> Iterator[Agent]:
            instance = Agent(conf, transport, **arguments)
            agents.append(instance)
            instance.start()
            try:
                yield instance
            finally:
                assert instance.stop(patience.LIMIT_S)

        return controller, agent

    yield start
    for server in servers:
        server.stop()
        server.wait()


@pytest.fixture(scope="session")
def hypervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The machine's libvirtd."""
    with libvirtd.connected(tmp_path_factory.mktemp("libvirt")) as connection:
        yield connection
