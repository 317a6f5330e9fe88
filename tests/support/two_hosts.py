# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment with two simulated hosts, each with an agent of its own, between which servers go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployments import Api, Service, answers
from patience import wait
from stack import http

C = "/compute/v2.1"


@contextlib.contextmanager
def fleet(
    start_service: Callable[..., Service],
    broker_url: str,
    home: Path,
    flavors: tuple[str, ...] = ("1",),
    **agent: object,
) -> Iterator[Api]:
    """Run hosts ``one`` and ``two`` with four vGPUs each.

    :param home: directory for their files
    :param flavors: that there are to be; each asks for as many vGPUs as it is called
    :param agent: further options of the agents
    """
    port = http.free_port()
    common = {"virt_driver": "simulated", "device_drivers": "simulated", "sync_interval": 1, **agent}
    options = {
        "DEFAULT": {"transport_url": broker_url, "state_path": home / "agent"},
        "api": {"auth_strategy": "noauth2"},
        "agent": {"host": "one", **common},
        "devices": {"simulated_gpus": "4"},
        "scheduler": {"poll_interval": 0.2},
    }
    bind = ("--bind", f"127.0.0.1:{port}", "--state-dir", str(home / "state"))
    service = start_service("accelsched-standalone", options, *bind, directory=home)
    api = Api(f"http://127.0.0.1:{port}")
    service.wait_for(lambda: answers(f"{api.url}/healthcheck"))
    other = start_service("accelsched-agent", {**options, "agent": {"host": "two", **common}}, directory=home)
    other.wait_for(lambda: len(api.get(f"{C}/os-services").json()["services"]) == 2)
    for name in flavors:
        flavor = {"name": name, "id": name, "vcpus": 1, "ram": 64, "disk": 1}
        assert api.post(f"{C}/flavors", json={"flavor": flavor}).ok
        assert api.post(f"{C}/flavors/{name}/os-extra_specs", json={"extra_specs": {"resources:VGPU": name}}).ok
    yield api
    other.stop()
    service.stop()


def act(api: Api, uuid: str, action: str, argument: Any = None) -> int:
    """Order something of a server; return the status of the answer."""
    return api.post(f"{C}/servers/{uuid}/action", json={action: argument}).status_code


def show(api: Api, uuid: str) -> dict[str, Any]:
    """Return a server as it is shown."""
    shown: dict[str, Any] = api.get(f"{C}/servers/{uuid}").json()["server"]
    return shown


def settled(api: Api, uuid: str, status: str) -> str:
    """Return the host of a server once it has a status and nothing is being done about it."""
    wait(
        lambda: (show(api, uuid)["status"], show(api, uuid)["OS-EXT-STS:task_state"]) == (status, None),
        told=lambda: show(api, uuid),
    )
    return str(show(api, uuid)["OS-EXT-SRV-ATTR:host"])


def vgpus(api: Api) -> dict[str, int]:
    """Return how many vGPUs are in use on each host."""
    providers = api.get("/placement/resource_providers").json()["resource_providers"]
    return {
        it["name"].split("_")[0]: api.get(f"/placement/resource_providers/{it['uuid']}/usages").json()["usages"]["VGPU"]
        for it in providers
        if "_gpu_" in it["name"]
    }
