# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Real processes over real HTTP: databases of their own, services on free loopback ports.

Tests run on each kind of database. With ``ACCELSCHED_TEST_DATABASES=one`` each runs on one of them, those marked
``every_database`` excepted.

A database server or broker that is not there fails the tests that need it. Where they are, and as whom to make
databases, is said by ``ACCELSCHED_TEST_POSTGRESQL``, ``ACCELSCHED_TEST_MARIADB`` and ``ACCELSCHED_TEST_RABBITMQ``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import brokers
import databases
import pytest
from deployments import Api, Options, Service, answers
from stack import http

StartService = Callable[..., Service]

# Files that take minutes. They begin first, so that at the end no worker waits long for another's.
_LONG = (
    "test_libvirt.py",
    "test_kill.py",
    "test_openstack_client.py",
    "test_processes.py",
    "test_benchmarks.py",
    "test_random_dialogues.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "every_database: what is tested is the database; on each kind wherever tests run"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("ACCELSCHED_TEST_DATABASES", "all") == "one":
        kept = databases.one_each(items)
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="session")
def start_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartService]:
    """Return what starts ``accelsched-*`` processes; they are stopped at the end of the session, in reverse."""
    started: list[Service] = []

    def start(command: str, options: Options, *arguments: str, directory: Path | None = None) -> Service:
        where = directory or tmp_path_factory.mktemp(command)
        service = Service(command, where, options, list(arguments))
        started.append(service)
        return service

    yield start
    for service in reversed(started):
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Templates]:
    """Databases of each kind, migrated, to be copied."""
    made = databases.Templates(tmp_path_factory.mktemp("templates"))
    yield made
    made.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of an empty database of each kind."""
    with databases.fresh(request.param, tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture(scope="session")
def api(database_url: str, start_service: StartService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return a whole deployment in one process, with one simulated host, on each kind of database."""
    port = http.free_port()
    service = start_service(
        "accelsched-standalone",
        {
            "api": {"auth_strategy": "noauth2", "max_limit": 50, "max_request_body_bytes": 1024 * 1024},
            "agent": {
                "host": "sim-host",
                "virt_driver": "simulated",
                "device_drivers": "simulated",
                "report_interval": 1,
                "sync_interval": 1,
                "simulated_numa_nodes": 2,
            },
            "devices": {"simulated_gpus": "4,4"},
            "pci": {"alias": '{"name": "fpga", "resource_class": "FPGA", "numa_policy": "required"}'},
            "scheduler": {"poll_interval": 0.2},
            "database": {"connection": database_url},
        },
        "--bind",
        f"127.0.0.1:{port}",
        "--state-dir",
        str(tmp_path_factory.mktemp("state")),
    )
    url = f"http://127.0.0.1:{port}"
    service.wait_for(lambda: answers(url + "/healthcheck"))
    client = Api(url)
    service.wait_for(lambda: bool(client.get("/compute/v2.1/os-services").json()["services"]))
    yield client
    service.stop()


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    """Return the URL of a virtual host of RabbitMQ that is this session's alone."""
    with brokers.fresh() as url:
        yield url
