# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Ours with an empty resource database: on each kind of database, and with a real Keystone in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
import requests
from placement_exchange import Client
from placement_peer import free_port
from stack import accounts, clouds
from stack.identity import Keystone

from accelsched.db.engine import Database


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, templates: databases.Templates, tmp_path: Path) -> Iterator[Database]:
    """Return an empty resource database of each kind."""
    with templates.copy(request.param, tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=databases.KINDS)
def ours(
    request: pytest.FixtureRequest,
    templates: databases.Templates,
    tmp_path_factory: pytest.TempPathFactory,
    start_service: Callable[..., Any],
) -> Iterator[Client]:
    """Return a client of the API alone, at the operator's service."""
    directory = tmp_path_factory.mktemp("placement")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with templates.url(request.param, directory) as database:
        service = start_service(
            "accelsched-standalone",
            {
                "standalone": {"services": "api"},
                "api": {"auth_strategy": "noauth2", "max_request_body_bytes": 1024 * 1024},
                "database": {"connection": database},
            },
            "--bind",
            f"127.0.0.1:{port}",
            "--state-dir",
            str(directory),
        )
        service.wait_for(lambda: _answers(url + "/healthcheck"))
        yield Client(url + "/placement")
        service.stop()


@pytest.fixture(scope="module")
def clouds_file(tmp_path_factory: pytest.TempPathFactory, start_service: Callable[..., Any]) -> Iterator[Path]:
    """Return a ``clouds.yaml``: its cloud ``accelsched`` is the operator's way to ours, through Keystone."""
    directory = tmp_path_factory.mktemp("cloud")
    keystone = Keystone(directory, free_port(), hash_rounds=4)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    try:
        keystone.start()
        accounts.ensure(keystone, accounts.catalog("http://127.0.0.1:9", url))
        clouds.write(directory / "clouds.yaml", keystone)
        with databases.fresh("postgresql", directory) as database:
            service = start_service(
                "accelsched-standalone",
                {
                    "standalone": {"services": "api"},
                    "api": {"auth_strategy": "keystone"},
                    "database": {"connection": database},
                    "keystone_authtoken": {
                        "auth_type": "password",
                        "auth_url": keystone.url,
                        "www_authenticate_uri": keystone.url,
                        "username": "accelsched",
                        "password": keystone.passwords.get("accelsched"),
                        "project_name": "service",
                        "user_domain_id": "default",
                        "project_domain_id": "default",
                    },
                },
                *("--bind", f"127.0.0.1:{port}", "--state-dir", str(directory / "state")),
            )
            service.wait_for(lambda: _answers(url + "/healthcheck"))
            yield directory / "clouds.yaml"
            service.stop()
    finally:
        keystone.stop()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.ConnectionError:
        return False
