# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes and PCI aliases, from flavor to simulated guest, over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deployments import Api
from patience import wait

C = "/compute/v2.1"


@pytest.fixture
def flavor_with(api: Api) -> Iterator[Callable[..., str]]:
    """Return what makes flavors of four CPUs with extra specs; they are deleted afterwards."""
    made: list[str] = []

    def make(specs: dict[str, str]) -> str:
        name = f"numa-{uuid.uuid4().hex[:8]}"
        flavor = {"name": name, "id": name, "vcpus": 4, "ram": 512, "disk": 1}
        assert api.post(f"{C}/flavors", json={"flavor": flavor}).status_code == 200
        made.append(name)
        response = api.post(f"{C}/flavors/{name}/os-extra_specs", json={"extra_specs": specs})
        assert response.status_code == 200, response.text
        return name

    yield make
    for name in made:
        api.delete(f"{C}/flavors/{name}")


def test_a_server_has_two_nodes_and_a_device_on_one_of_them(
    api: Api, create: Callable[..., dict[str, Any]], flavor_with: Callable[..., str]
) -> None:
    flavor = flavor_with({"hw:numa_nodes": "2", "hw:mem_page_size": "small", "pci_passthrough:alias": "fpga:1"})
    server = create(flavorRef=flavor)["server"]["id"]
    wait(lambda: api.get(f"{C}/servers/{server}").json()["server"]["status"] == "ACTIVE")
    told = api.get(f"/v1/servers/{server}/explanation").json()["explanation"]
    selection = told["selection"]
    assert sorted(node["node"] for node in selection["numa"]) == [0, 1]
    assert {(node["memory_mb"], node["page_kb"], len(node["shared_cpus"])) for node in selection["numa"]} == {
        (256, 4, 2)
    }
    assert [device["resources"] for device in selection["devices"] if device["group"]] == [{"FPGA": 1}]
    console = api.post(f"{C}/servers/{server}/action", json={"os-getConsoleOutput": {}}).json()["output"]
    assert "simulated memory of 256 MiB on node 0" in console


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"hw:numa_nodes": "3"}, "divided evenly by 3"),
        ({"hw:cpu_policy": "mixed"}, "needs hw:cpu_dedicated_mask"),
        ({"pci_passthrough:alias": "gpu:1"}, "there is no alias gpu"),
    ],
)
def test_what_does_not_go_together_is_refused_when_a_server_is_asked_for(
    api: Api, flavor_with: Callable[..., str], specs: dict[str, str], message: str
) -> None:
    wanted = {"name": "one", "flavorRef": flavor_with(specs), "networks": "none"}
    response = api.post(f"{C}/servers", json={"server": wanted})
    assert response.status_code == 400
    assert message in response.json()["badRequest"]["message"]


def test_a_flavor_does_not_take_what_nobody_can_give(api: Api, flavor_with: Callable[..., str]) -> None:
    name = flavor_with({})
    for specs in ({"hw:cpu_realtime": "yes"}, {"pci_passthrough:alias": "fpga"}):
        assert api.post(f"{C}/flavors/{name}/os-extra_specs", json={"extra_specs": specs}).status_code == 400


def test_dedicated_cpus_that_no_host_has_are_said_to_be_short(
    api: Api, create: Callable[..., dict[str, Any]], flavor_with: Callable[..., str]
) -> None:
    server = create(flavorRef=flavor_with({"hw:cpu_policy": "dedicated"}))["server"]["id"]
    wait(lambda: api.get(f"{C}/servers/{server}").json()["server"]["status"] == "ERROR")
    assert "PCPU removed 1" in api.get(f"{C}/servers/{server}").json()["server"]["fault"]["message"]
