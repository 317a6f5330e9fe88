# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that a server brings along from another host."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from accelsched.agent.virt.base import Progress
from accelsched.agent.virt.libvirt import moving
from accelsched.agent.virt.libvirt.instance import Instance

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


class Source:
    """A host that has a config drive and nothing else."""

    host = "one"

    def __init__(self) -> None:
        self.asked = 0

    def files(self) -> dict[str, int]:
        self.asked += 1
        return {"disk.config": 4}

    def fetch(self, _name: str, size: int, path: Path) -> None:
        path.write_bytes(bytes(size))


def test_who_has_all_files_asks_for_nothing_again(tmp_path: Path) -> None:
    instance, source = Instance(tmp_path, SERVER), Source()
    instance.create()
    assignment: Any = {"image": None, "flavor": {"disk_gb": 0}}
    for _ in range(2):  # as after a kill
        moving.take_over(instance, assignment, source, None, Progress(lambda _: None, threading.Event()))  # type: ignore[arg-type]
    assert (instance.config_drive.read_bytes(), source.asked) == (bytes(4), 1)
