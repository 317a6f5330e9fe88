# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""An agent over in-process messaging, and the peers it needs: a control plane, an image service, libvirt."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
import patience
import pytest
from oslo_config import cfg
from stack import progress
from stack.hypervisor import URI, Hypervisor

from accelsched import conf as options
from accelsched import rpc, wire
from accelsched.agent.manager import Agent
from accelsched.agent.virt import kvm

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "agent"))

from fake_controller import FakeController
from fake_sysfs import FakeSysfs


class ImageService:
    """Glance's image API, as much of it as an agent asks for, on a loopback port."""

    def __init__(self) -> None:
        self.images: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.downloads: list[str] = []
        self.uploads: list[str] = []
        self.refuses_uploads = False
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = self.path.strip("/").split("/")
                record, data = (
                    service.images.get(parts[2], (None, b"")) if parts[:2] == ["v2", "images"] else (None, b"")
                )
                body = data if parts[-1] == "file" else json.dumps(record).encode()
                if parts[-1] == "file":
                    service.downloads.append(parts[2])
                self.send_response(404 if record is None else 200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PATCH(self) -> None:
                record, _ = service.images[self.path.strip("/").split("/")[2]]
                for change in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
                    record[change["path"].strip("/")] = change["value"]
                self._answer(200, json.dumps(record).encode())

            def do_PUT(self) -> None:
                image_id = self.path.strip("/").split("/")[2]
                data = b""
                while length := int(self.rfile.readline(), 16):
                    data += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                record, _ = service.images[image_id]
                service.uploads.append(image_id)
                if service.refuses_uploads:
                    self._answer(403, b"")
                    return
                service.images[image_id] = (record | {"status": "active", "size": len(data)}, data)
                self._answer(204, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, data: bytes, disk_format: str, **properties: str) -> wire.ImageSpec:
        image_id = str(uuid.uuid4())
        record = {
            "id": image_id,
            "disk_format": disk_format,
            "size": len(data),
            "os_hash_algo": "sha512",
            "os_hash_value": hashlib.sha512(data).hexdigest(),
        }
        self.images[image_id] = (record, data)
        return {
            "id": image_id,
            "name": "test image",
            "disk_format": disk_format,
            "size": len(data),
            "min_disk_gb": 0,
            "min_ram_mb": 0,
            "os_hash_algo": "sha512",
            "os_hash_value": record["os_hash_value"],
            "properties": properties,
        }

    def queued(self) -> str:
        """Make an image that is to be filled; return its id."""
        image_id = str(uuid.uuid4())
        self.images[image_id] = ({"id": image_id, "status": "queued", "disk_format": None}, b"")
        return image_id

    def spec(self, image_id: str, **properties: str) -> wire.ImageSpec:
        """Return an image that was filled as a server is made of it."""
        record, data = self.images[image_id]
        return self.add(data, record["disk_format"], **properties)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


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
    """The machine's libvirtd, which knows its QEMU; started and left running when it does not run."""
    with (Path(tempfile.gettempdir()) / "accelsched-tests-libvirt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests may be about to do the same
        Hypervisor(tmp_path_factory.mktemp("libvirt")).start(bool(kvm.kvm_works()), progress.silent)
    connection = libvirt.open(URI)
    yield connection
    connection.close()
