# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Live migration through the whole of accelsched: API, scheduler and two agents, each with a libvirtd of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirt_pair
import pytest
from deployments import Api, answers
from image_service import ImageService
from patience import wait
from stack import http

C = "/compute/v2.1"
OTHER = {"node1": "node2", "node2": "node1"}


class Site:
    """Two hosts, and who may be asked what there is on them."""

    def __init__(self, api: Api, states: dict[str, Path], uris: dict[str, str], image: str) -> None:
        self.api = api
        self.states = states
        self.uris = uris
        self.image = image

    def create(self) -> str:
        body = {"name": "s", "flavorRef": "1", "imageRef": self.image, "networks": "none", "config_drive": True}
        uuid: str = self.api.post(f"{C}/servers", json={"server": body}).json()["server"]["id"]
        return uuid

    def settled(self, uuid: str) -> str:
        def shown() -> dict[str, Any]:
            server: dict[str, Any] = self.api.get(f"{C}/servers/{uuid}").json()["server"]
            return server

        wait(lambda: (shown()["status"], shown()["OS-EXT-STS:task_state"]) == ("ACTIVE", None), told=shown)
        return str(shown()["OS-EXT-SRV-ATTR:host"])

    def domains(self, host: str) -> dict[str, bool]:
        connection = libvirt.open(self.uris[host])
        try:
            return {domain.UUIDString(): bool(domain.isActive()) for domain in connection.listAllDomains()}
        finally:
            connection.close()

    def files(self, host: str) -> set[str]:
        return {path.name for path in (self.states[host] / "instances").iterdir() if path.name != "_base"}

    def why(self, uuid: str) -> object:
        """Return how what was asked for last went."""
        actions = self.api.get(f"{C}/servers/{uuid}/os-instance-actions").json()["instanceActions"]
        path = f"{C}/servers/{uuid}/os-instance-actions/{actions[0]['request_id']}"
        return self.api.get(path).json()["instanceAction"]

    def migration(self, uuid: str) -> dict[str, Any]:
        listed = self.api.get(f"{C}/os-migrations?instance_uuid={uuid}").json()["migrations"]
        return listed[0] if listed else {}


@pytest.fixture
def site(start_service: Any, broker_url: str, tmp_path: Path) -> Iterator[Site]:
    images, port = ImageService(), http.free_port()
    # Where QEMU, which runs as a user of its own, gets at it.
    home = Path(tempfile.mkdtemp(prefix="accelsched-test-live-", dir="/var/tmp"))
    home.chmod(0o755)
    services = []
    with libvirt_pair.running() as (nodes, uri):
        states = {node.name: home / node.name for node in nodes}

        def options(node: Any) -> dict[str, dict[str, object]]:
            return {
                "DEFAULT": {"transport_url": broker_url, "state_path": states[node.name]},
                "api": {"auth_strategy": "noauth2"},
                "agent": {"host": node.name, "device_drivers": "simulated", "sync_interval": 1},
                "devices": {"simulated_gpus": "1"},
                "scheduler": {"poll_interval": 0.2},
                "glance": {"auth_type": "none", "endpoint_override": images.url},
                "libvirt": {
                    "virt_type": "qemu",
                    "connection_uri": node.uri,
                    "live_migration_uri": uri,
                    "live_migration_inbound_addr": node.address,
                },
            }

        bind = ("--bind", f"127.0.0.1:{port}", "--state-dir", str(states["node1"]))
        services.append(start_service("accelsched-standalone", options(nodes[0]), *bind, directory=tmp_path))
        api = Api(f"http://127.0.0.1:{port}")
        services[0].wait_for(lambda: answers(f"{api.url}/healthcheck"))
        services.append(start_service("accelsched-agent", options(nodes[1]), directory=tmp_path))
        services[1].wait_for(lambda: len(api.get(f"{C}/os-services").json()["services"]) == 2)
        flavor = {"name": "1", "id": "1", "vcpus": 1, "ram": 64, "disk": 1}
        assert api.post(f"{C}/flavors", json={"flavor": flavor}).ok
        assert api.post(f"{C}/flavors/1/os-extra_specs", json={"extra_specs": {"resources:VGPU": "1"}}).ok
        image = images.add(b"\0" * 1024 * 1024, "raw")["id"]
        yield Site(api, states, {node.name: node.uri for node in nodes}, image)
        for service in services:
            service.stop()
    images.stop()
    shutil.rmtree(home)


def test_a_domain_goes_there_and_back_and_is_nowhere_else(site: Site) -> None:
    uuid = site.create()
    source = site.settled(uuid)
    for here in (source, OTHER[source]):
        live = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        assert site.api.post(f"{C}/servers/{uuid}/action", json=live).status_code == 202
        assert site.settled(uuid) == OTHER[here], site.why(uuid)
        assert site.migration(uuid)["status"] == "completed"
        assert (site.domains(here), site.domains(OTHER[here])) == ({}, {uuid: True})
        wait(lambda here=here: site.files(here) == set())
        assert site.files(OTHER[here]) == {uuid}
    assert site.api.delete(f"{C}/servers/{uuid}").status_code == 204
    wait(lambda: [site.domains(host) for host in OTHER] == [{}, {}])
    wait(lambda: [site.files(host) for host in OTHER] == [set(), set()])
