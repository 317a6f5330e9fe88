# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""openstacksdk's placement calls, as they are, against ours behind a real Keystone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest

GPU_TRAIT = "CUSTOM_SDK"


@pytest.fixture
def placement(clouds_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds_file))
    connection = openstack.connect(cloud="accelsched")
    yield connection.placement
    connection.close()


def test_providers_with_all_that_hangs_on_them_come_and_go(placement: Any) -> None:
    host = placement.create_resource_provider(name="sdk-host")
    gpu = placement.create_resource_provider(name="sdk-gpu", parent_provider_id=host.id)
    assert {provider.name for provider in placement.resource_providers()} >= {"sdk-host", "sdk-gpu"}
    assert placement.find_resource_provider("sdk-gpu").id == gpu.id
    assert placement.get_resource_provider(gpu.id).parent_provider_id == host.id

    made = placement.create_resource_provider_inventory(gpu, "VGPU", total=8)
    placement.update_resource_provider_inventory(made, gpu, total=4, resource_provider_generation=1)
    assert placement.get_resource_provider_inventory("VGPU", gpu).total == 4
    assert [one.total for one in placement.resource_provider_inventories(gpu)] == [4]
    assert [provider.id for provider in placement.resource_providers(resources="VGPU:4")] == [gpu.id]

    placement.create_trait(GPU_TRAIT)
    assert placement.get_trait(GPU_TRAIT).id == GPU_TRAIT  # the answer has no body, hence no name
    assert GPU_TRAIT in {trait.id for trait in placement.traits()}

    aggregate = "dddddddd-0000-4000-8000-0000000000d1"
    placement.set_resource_provider_aggregates(placement.get_resource_provider(host.id), aggregate)
    assert placement.get_resource_provider_aggregates(host.id).aggregates == [aggregate]

    placement.create_resource_class(name="CUSTOM_SDK_CLASS")
    assert "CUSTOM_SDK_CLASS" in {one.name for one in placement.resource_classes()}
    placement.delete_resource_class("CUSTOM_SDK_CLASS")

    placement.update_resource_provider(host, name="sdk-host-2")
    assert placement.get_resource_provider(host.id).name == "sdk-host-2"
    placement.delete_resource_provider_inventory("VGPU", gpu)
    placement.delete_trait(GPU_TRAIT)
    for provider in (gpu, host):
        placement.delete_resource_provider(provider)
    assert placement.find_resource_provider("sdk-gpu") is None
