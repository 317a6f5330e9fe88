# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Options, a context and a fake sysfs for the agent's parts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from accelsched import conf as options
from accelsched import wire
from accelsched.agent.devices.base import HostContext
from accelsched.agent.privileged import context as privileges

sys.path.insert(0, str(Path(__file__).parent))

from fake_sysfs import FakeSysfs

NODE_UUID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSysfs:
    tree = FakeSysfs(tmp_path / "sys")
    monkeypatch.setattr("accelsched.agent.devices.sysfs.write", tree.write)
    return tree


@pytest.fixture
def conf(tmp_path: Path) -> cfg.ConfigOpts:
    conf = options.new()
    options.parse(conf, [], "test")
    conf.set_override("state_path", str(tmp_path / "state"))
    conf.set_override("host", "node1", group="agent")
    conf.set_override("sysfs_root", str(tmp_path / "sys"), group="devices")
    privileges.use(conf)
    return conf


@pytest.fixture
def context(conf: cfg.ConfigOpts) -> HostContext:
    state_path = Path(conf.state_path)
    state_path.mkdir()
    return HostContext(conf, "node1", NODE_UUID, state_path)


@pytest.fixture
def assignment_for() -> Callable[..., wire.Assignment]:
    def new(**changes: Any) -> wire.Assignment:
        assignment: wire.Assignment = {
            "server_uuid": "aaaaaaaa-0000-4000-8000-000000000001",
            "host": "node1",
            "desired": "active",
            "name": "Web 1",
            "project_id": "p1",
            "user_id": "u1",
            "flavor": {"name": "m1", "vcpus": 2, "ram_mb": 512, "disk_gb": 1, "extra_specs": {}},
            "image": None,
            "devices": [],
            "metadata": {},
            "user_data": None,
            "config_drive": False,
            "created_at": "2026-11-24T12:00:00Z",
        }
        assignment.update(changes)  # type: ignore[typeddict-item]
        return assignment

    return new
