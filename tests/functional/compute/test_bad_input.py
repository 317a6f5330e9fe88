# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent, the Compute API answers in its own form, and never with a crash."""

from __future__ import annotations

import random
import string
from typing import Any
from urllib.parse import quote

import orjson
import pytest

C = "/compute/v2.1"
FLAVOR = {"name": "n", "id": "i", "ram": 64, "vcpus": 1, "disk": 1, "swap": 0, "rxtx_factor": 1.0, "description": "d"}
SERVER = {
    "name": "s",
    "flavorRef": "no-such",
    "imageRef": "",
    "networks": "none",
    "metadata": {"a": "b"},
    "min_count": 1,
    "max_count": 2,
    "config_drive": True,
    "user_data": "aGk=",
    "availability_zone": "nova",
    "security_groups": [{"name": "default"}],
    "block_device_mapping_v2": [],
    "OS-DCF:diskConfig": "AUTO",
}
STRANGE = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        -(2**70),
        1.5,
        1e308,
        "",
        " ",
        "x",
        "\0",
        "a\0b",
        "é\u202e",
        "😀",
    ),
    *("x" * 256, "x" * 70_000, "%s%n", "'; DROP TABLE servers;--", "../../etc/passwd", [], {}, [[]], [None], {"a": {}}),
    *([{}] * 3, {"": ""}, {"\0": "\0"}, {"a": "\ud7ff"}, ["x"] * 1000),
]


def strange_bodies(base: dict[str, Any], wrapper: str, rounds: int) -> list[Any]:
    """Return bodies that differ from a good one in a strange way or two, the same each time."""
    random_ = random.Random(17)
    bodies: list[Any] = [*STRANGE, *({wrapper: value} for value in STRANGE)]
    bodies += [{wrapper: base | {key: value}} for key in base for value in STRANGE]
    for _ in range(rounds):
        chosen = dict(base)
        for key in random_.sample(list(base), 2):
            chosen[key] = random_.choice(STRANGE)
        if random_.random() < 0.3:
            del chosen[random_.choice(list(base))]
        bodies.append({wrapper: chosen})
    return bodies


def assert_is_novas_fault(response: Any) -> None:
    assert 400 <= response.status_code < 500, (response.status_code, response.text, response.request.url)
    ((_, fault),) = response.json().items()
    assert fault["code"] == response.status_code
    assert fault["message"]
    assert len(response.content) < 5000


@pytest.mark.parametrize(
    ("path", "base", "wrapper"),
    [
        (f"{C}/flavors", FLAVOR, "flavor"),
        (f"{C}/servers", SERVER, "server"),
        (f"{C}/flavors/no-such/os-extra_specs", {"resources:VGPU": "1", "trait:X": "required"}, "extra_specs"),
        (f"{C}/servers/no-such/metadata", {"a": "b", "c": "d"}, "metadata"),
        (f"{C}/servers/no-such/action", {"length": 1, "type": "SOFT"}, "os-getConsoleOutput"),
    ],
)
def test_strange_bodies(api, path, base, wrapper):
    made = []
    for body in strange_bodies(base, wrapper, 60):
        raw = orjson.dumps(body) if not _too_big(body) else str(body).encode()
        response = api.post(path, data=raw, headers={"Content-Type": "application/json"})
        if response.status_code == 200 and wrapper == "flavor":
            made.append(response.json()["flavor"]["id"])
            api.delete(f"{C}/flavors/{quote(made[-1], safe='')}")
            continue
        assert_is_novas_fault(response)
    assert not api.get(f"{C}/servers?all_tenants=1&name=^s").json()["servers"]


def _too_big(body: Any) -> bool:
    try:
        orjson.dumps(body)
    except TypeError:
        return True
    return False


STRANGE_TEXTS = [
    "\0",
    "%00",
    "é",
    "\xff",
    "😀",
    "x" * 300,
    "'",
    '"',
    "\\",
    "a b",
    "%",
    "\n",
    "a\nb",
    "-1",
    "nan",
    "[",
    "*",
]


def test_strange_paths(api):
    for text in STRANGE_TEXTS:
        for path in (
            *("/servers/{}", "/servers/{}/metadata/{}", "/flavors/{}", "/flavors/{}/os-extra_specs/{}"),
            *("/os-hypervisors/{}", "/{}", "/servers/{}/ips", "/os-keypairs/{}"),
        ):
            assert_is_novas_fault(api.get(C + path.replace("{}", quote(text, safe=""))))


QUERIES = {
    "/servers/detail": (
        *("limit", "marker", "sort_key", "sort_dir", "name", "status", "host", "node", "flavor", "image", "uuid"),
        *("changes-since", "changes-before", "created_at", "launched_at", "vm_state", "task_state", "deleted"),
        *("power_state", "config_drive", "reservation_id", "availability_zone", "ip", "user_id", "project_id"),
        *("all_tenants", "tags"),
    ),
    "/flavors/detail": ("limit", "marker", "sort_key", "sort_dir", "is_public", "minRam", "minDisk"),
    "/os-hypervisors/detail": ("limit", "marker", "hypervisor_hostname_pattern"),
    "/limits": ("tenant_id",),
}
VALUES = ["", "1", "true", "9" * 30, "2026-11-24T00:00:00", "9999-99-99", "0001-01-01T00:00:00+14:00"]


@pytest.mark.parametrize("path", QUERIES)
def test_strange_queries(api, path):
    for name in QUERIES[path]:
        for text in [*STRANGE_TEXTS, *VALUES]:
            response = api.get(f"{C}{path}?{name}={quote(text, safe='')}")
            if response.status_code != 200:
                assert_is_novas_fault(response)


def test_strange_headers(api):
    letters = random.Random(3).choices(string.printable.strip(), k=200)
    for value in [
        "compute",
        "compute ",
        "compute 2",
        "x" * 5000,
        "".join(letters),
        "compute 2.1,compute 2.2",
        ",,,",
        "2.1",
    ]:
        response = api.at(value).get(f"{C}/servers")
        assert response.status_code in (200, 400, 406)


def test_extra_specs_are_checked_as_in_2_86_from_there_on(api, flavor):
    path, sloppy = f"{C}/flavors/{flavor}/os-extra_specs", {"extra_specs": {"hw:cpu_polcy": "dedicated", "ssd": "1"}}
    assert_is_novas_fault(api.post(path, json=sloppy, headers={"OpenStack-API-Version": "compute 2.86"}))
    one = {"quota:cpu_shares": "many"}
    assert_is_novas_fault(
        api.put(f"{path}/quota:cpu_shares", json=one, headers={"OpenStack-API-Version": "compute 2.86"})
    )
    assert api.get(path).json()["extra_specs"] == {"resources:VGPU": "1"}
    assert api.post(path, json=sloppy, headers={"OpenStack-API-Version": "compute 2.85"}).status_code == 200
