# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that a test makes, and that are gone when it ends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import wait

C = "/compute/v2.1"


@pytest.fixture
def flavor(api) -> Iterator[str]:
    """Return the id of a flavor that asks for one vGPU."""
    name = f"vgpu-{uuid.uuid4().hex[:8]}"
    made = api.post(f"{C}/flavors", json={"flavor": {"name": name, "vcpus": 1, "ram": 64, "disk": 1, "id": name}})
    assert made.status_code == 200, made.text
    specs = api.post(f"{C}/flavors/{name}/os-extra_specs", json={"extra_specs": {"resources:VGPU": "1"}})
    assert specs.status_code == 200, specs.text
    yield name
    api.delete(f"{C}/flavors/{name}")


@pytest.fixture
def create(api, flavor) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return what creates servers; they are deleted, and seen to be gone, afterwards."""
    projects: list[Any] = []

    def post(who: Any = api, beside: dict[str, Any] | None = None, **server: Any) -> dict[str, Any]:
        projects.append(who)
        wanted = {"name": "one", "flavorRef": flavor, "networks": "none"} | server
        response = who.post(f"{C}/servers", json={"server": wanted, **(beside or {})})
        assert response.status_code == 202, response.text
        return response.json()

    yield post
    for who in projects:
        for server in who.get(f"{C}/servers").json()["servers"]:
            who.delete(f"{C}/servers/{server['id']}")
        wait(lambda: not who.get(f"{C}/servers").json()["servers"])  # noqa: B023 - called here and now
