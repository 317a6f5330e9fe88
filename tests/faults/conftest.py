# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A cloud for these tests, started once."""

from __future__ import annotations

from collections.abc import Iterator

import brokers
import databases
import libvirtd
import pytest
from cloud import Cloud
from image_service import ImageService


@pytest.fixture(scope="session")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The cloud, started once."""
    directory = tmp_path_factory.mktemp("cloud")
    images = ImageService()
    with (
        libvirtd.connected(directory / "libvirt") as hypervisor,
        databases.fresh("postgresql", directory) as database,
        brokers.own() as broker,
    ):
        cloud = Cloud(directory, database, broker, images, hypervisor)
        yield cloud
        cloud.close()
    images.stop()


@pytest.fixture
def cloud(running_cloud: Cloud) -> Iterator[Cloud]:
    """The cloud, with nothing in it, and nothing left in it afterwards."""
    assert running_cloud.nothing_left(), running_cloud.everything()
    yield running_cloud
    for server in running_cloud.servers():
        running_cloud.delete(server["id"])
    running_cloud.assert_nothing_left()
