# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How devices are found by name, over several pages, and shown."""

from __future__ import annotations

from typing import Any

import pytest
from osc_lib import exceptions

from accelsched.osc import device

UUIDS = [f"9d2b61c7-f05e-48a3-9d2b-61c7f05e48a{number}" for number in range(3)]
DEVICES = [
    {
        "uuid": uuid,
        "name": f"gpu{number}",
        "host": "h",
        "status": "enabled",
        "inventories": {"VGPU": {"total": 8, "reserved": 0, "used": number}},
        "consumers": ["a", "b"],
        "fault": None if number else "does not answer",
    }
    for number, uuid in enumerate(UUIDS)
]


class Service:
    """Answers as the service does, one device a page."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    def get(self, _path: str, params: dict[str, str]) -> Any:
        self.asked.append(dict(params))
        number = UUIDS.index(params["marker"]) + 1 if "marker" in params else 0
        told = {"devices": [DEVICES[number]], "next_marker": UUIDS[number] if number + 1 < len(UUIDS) else None}
        return type("Answer", (), {"json": lambda _self: told})()


def test_all_pages_are_read_and_only_what_was_asked_for_is_asked() -> None:
    service = Service()
    assert [one["name"] for one in device.every(service, host="h", status=None)] == ["gpu0", "gpu1", "gpu2"]
    assert service.asked == [{"host": "h"}, {"host": "h", "marker": UUIDS[0]}, {"host": "h", "marker": UUIDS[1]}]


def test_names_are_looked_up_and_uuids_are_not() -> None:
    service = Service()
    assert device.resolved(service, [UUIDS[1]]) == [UUIDS[1]]
    assert service.asked == []
    assert device.resolved(service, ["gpu2", UUIDS[0]]) == [UUIDS[2], UUIDS[0]]
    with pytest.raises(exceptions.CommandError, match="gpu7, gpu9"):
        device.resolved(service, ["gpu9", "gpu7", "gpu1"])


def test_a_row_tells_what_is_used_and_by_whom_and_what_is_wrong() -> None:
    assert device.row(DEVICES[1]) == (UUIDS[1], "gpu1", "h", "enabled", "VGPU 1/8", "a, b", "")
    assert device.row(DEVICES[0])[-1] == "does not answer"
