# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that makes a mediated device on a sysfs tree, with the real mdevctl, and prints what that has on file.

Arguments: configuration file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelsched import conf as options
from accelsched.agent.devices.base import HostContext
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.agent.privileged import context

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
DEFINITIONS = Path("/etc/mdevctl.d")


def main() -> None:
    """Do all of it."""
    conf = options.new()
    options.parse(conf, ["--config-file", sys.argv[1]], "defining")
    context.start(conf)
    driver = MdevDriver(HostContext(conf, "node1", "11111111-2222-4333-8444-555555555555", Path(conf.state_path)))
    (gpu,) = driver.discover()
    wanted: Any = {"group": "", "provider_uuid": "b", "provider_name": gpu.name, "resources": {"VGPU": 1}}
    (made,) = driver.prepare(SERVER, wanted)
    uuid = made.uuid  # type: ignore[union-attr]
    told: dict[str, Any] = {"uuid": uuid, "made": _files()}

    # Somebody has it at another parent instead, and defines one of his own.
    (moved,) = DEFINITIONS.glob(f"*/{uuid}")
    elsewhere = DEFINITIONS / "0000:42:00.0"
    elsewhere.mkdir()
    moved.rename(elsewhere / uuid)
    (elsewhere / "11111111-2222-4333-8444-555555555555").write_text('{"mdev_type": "x", "start": "auto", "attrs": []}')
    driver.repair()
    told["repaired"] = _files()
    driver.release(SERVER)
    told["released"] = _files()
    print(json.dumps(told))


def _files() -> dict[str, Any]:
    """Return mdevctl's definitions by PARENT/UUID."""
    files = (path for path in DEFINITIONS.glob("*/*") if path.is_file())
    return {f"{path.parent.name}/{path.name}": json.loads(path.read_bytes()) for path in files}


main()
