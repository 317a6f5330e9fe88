# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""An agent of the previous version, as it was, at a control plane of this one: it is served, and asked no more than it
understands.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import patience
import pytest
from cloud import C, Cloud
from deployments import Service

# The last commit whose agents speak version 1.0.
PREVIOUS = "4fec83d"
_TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def old_host(cloud: Cloud, tmp_path: Path) -> Iterator[str]:
    """Return a simulated host whose agent is of the previous version."""
    tree = tmp_path / "tree"
    tree.mkdir()
    archive = subprocess.run(["git", "-C", _TOP, "archive", PREVIOUS, "accelsched"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    options: dict[str, dict[str, object]] = {
        "DEFAULT": {"transport_url": cloud.broker.url, "state_path": tmp_path / "state"},
        "agent": {
            "host": "old",
            "virt_driver": "simulated",
            "device_drivers": "simulated",
            "report_interval": 0.5,
            "sync_interval": 0.5,
        },
        "devices": {"simulated_gpus": "2"},
    }
    agent = Service("accelsched-agent", tmp_path / "old", options, [], {"PYTHONPATH": str(tree)})
    agent.wait_for(lambda: "old" in cloud.hosts_up())
    yield "old"
    for server in cloud.servers():
        cloud.delete(server["id"])
    cloud.assert_nothing_left()
    agent.stop()
    cloud.forget("old")


def test_an_agent_of_the_previous_version_is_served(cloud: Cloud, old_host: str) -> None:
    cloud.create("s", host=old_host)
    server = cloud.wait_for("ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] == old_host
    path = f"{C}/servers/{server['id']}"
    for action, arguments in {
        "rescue": None,
        "createImage": {"name": "image"},
        "createBackup": {"name": "backup", "backup_type": "daily", "rotation": 1},
        "shelve": None,
    }.items():
        refused = cloud.api.post(f"{path}/action", json={action: arguments})
        assert refused.status_code == 409, refused.text
        assert "speaks RPC version 1.0, and this takes 1.1" in refused.text
    assert cloud.api.get(f"{path}/diagnostics").status_code == 409
    asked = {"accelerator": {"resource_class": "VGPU"}}
    refused = cloud.api.post(f"/v1/servers/{server['id']}/accelerators", json=asked)
    assert (refused.status_code, "speaks RPC version 1.0" in refused.text) == (409, True), refused.text
    assert cloud.api.post(f"{path}/action", json={"os-getConsoleOutput": {}}).status_code == 200
    assert cloud.wait_for("ACTIVE")["updated"] == server["updated"]
    cloud.act(server["id"], "os-stop")
    cloud.wait_for("SHUTOFF")
    cloud.act(server["id"], "os-start")
    cloud.wait_for("ACTIVE")
    cloud.act(server["id"], "reboot", {"type": "HARD"})
    cloud.wait_for("ACTIVE")
    patience.wait(lambda: len(cloud.api.get(f"{path}/os-instance-actions").json()["instanceActions"]) == 4)
