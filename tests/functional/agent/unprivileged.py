# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A process that becomes an unprivileged user as accelsched-agent does, handles devices, and prints what came of it.

Arguments: configuration file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from accelsched import conf as options
from accelsched import errors
from accelsched.agent.devices.base import HostContext
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.agent.devices.vfio import VfioDriver
from accelsched.agent.privileged import context, operations

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


def main() -> None:
    """Do all of it."""
    conf = options.new()
    options.parse(conf, ["--config-file", sys.argv[1]], "unprivileged")
    context.start(conf)
    state = Path(conf.state_path)
    host = HostContext(conf, "node1", "11111111-2222-4333-8444-555555555555", state)
    told: dict[str, Any] = {"uid": os.geteuid(), "groups": os.getgroups()}

    mdev = MdevDriver(host)
    (gpu,) = mdev.discover()
    wanted: Any = {"group": "", "provider_uuid": "b", "provider_name": gpu.name, "resources": {"VGPU": 1}}
    (made,) = mdev.prepare(SERVER, wanted)
    told["created"] = made.uuid  # type: ignore[union-attr]
    try:
        with (
            (Path(conf.devices.sysfs_root) / "class/mdev_bus" / str(gpu.address))
            .joinpath("mdev_supported_types/nvidia-2/create")
            .open("w") as attribute
        ):
            attribute.write("x")
    except PermissionError:
        told["alone"] = "refused"

    vfio = VfioDriver(host)
    (card,) = vfio.discover()
    wanted["provider_name"] = card.name
    (attachment,) = vfio.prepare(SERVER, wanted)
    told["virtual function"] = attachment.address  # type: ignore[union-attr]
    try:
        operations.set_vgpu_type("../../x", 1)
    except ValueError as exc:
        told["bad address"] = str(exc)
    try:
        operations.remove_mdev("acce15ed-0000-8000-a000-0000000000ff")
    except FileNotFoundError as exc:
        told["missing"] = exc.errno
    told["cleaned"] = operations.clean(["0000:41:00.0"])
    operations.own_instance_file(SERVER, "console.log")
    told["console"] = (state / "instances" / SERVER / "console.log").read_text()
    if conf.agent.user:
        told |= _without_helper()
    print(json.dumps(told))


def _without_helper() -> dict[str, Any]:
    """Return what comes of an operation after the helper has ended, as it does with its channel."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    context.ROOT.channel.close()
    context.ROOT.channel.running = False
    try:
        operations.set_vgpu_type("0000:42:00.4", 0)
    except errors.UnavailableError as exc:
        return {"without helper": str(exc), "came": came}
    return {}


if __name__ == "__main__":
    main()
