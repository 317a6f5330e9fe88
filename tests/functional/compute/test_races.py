# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Users, schedulers and agents at the same time: nothing is lost, nothing is left behind."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from patience import wait

pytestmark = pytest.mark.every_database

C = "/compute/v2.1"


@pytest.fixture
def flavor(api) -> Iterator[str]:
    """Return the id of a flavor that asks for one vGPU."""
    name = f"race-{uuid.uuid4().hex[:8]}"
    assert api.post(f"{C}/flavors", json={"flavor": {"name": name, "vcpus": 1, "ram": 64, "disk": 1, "id": name}}).ok
    assert api.post(f"{C}/flavors/{name}/os-extra_specs", json={"extra_specs": {"resources:VGPU": "1"}}).ok
    yield name
    api.delete(f"{C}/flavors/{name}")


def vgpus_used(api, project: str) -> int:
    headers = {"OpenStack-API-Version": "placement 1.9"}
    usages = api.get(f"/placement/usages?project_id={project}", headers=headers).json()["usages"]
    return int(usages.get("VGPU", 0))


def test_servers_deleted_while_they_are_placed_and_built_give_everything_back(api, flavor):
    project = f"race-{uuid.uuid4().hex[:8]}"
    user = api.user(project)
    random_ = random.Random(7)
    pauses = [random_.uniform(0, 0.5) for _ in range(16)]

    def live_and_die(pause: float) -> int:
        body: Any = {"server": {"name": "r", "flavorRef": flavor, "networks": "none", "min_count": 1, "max_count": 2}}
        # A session each: requests' are not made for threads.
        mine = user.at("2.90")
        assert mine.post(f"{C}/servers", json={**body, "os:scheduler_hints": {}}).status_code == 202
        time.sleep(pause)
        for server in mine.get(f"{C}/servers").json()["servers"]:
            assert mine.delete(f"{C}/servers/{server['id']}").status_code in (204, 404)
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(live_and_die, pauses)) == len(pauses)
    for server in user.get(f"{C}/servers").json()["servers"]:
        user.delete(f"{C}/servers/{server['id']}")
    wait(lambda: user.get(f"{C}/servers").json()["servers"] == [])
    assert vgpus_used(api, project) == 0


def test_extra_specs_written_at_the_same_time_are_all_there(api, flavor):
    def add(number: int) -> int:
        specs = {"extra_specs": {f"note:{number}": "x"}}
        mine = api.at("2.90")
        return mine.post(f"{C}/flavors/{flavor}/os-extra_specs", json=specs).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(add, range(24))) == {200}
    specs = api.get(f"{C}/flavors/{flavor}/os-extra_specs").json()["extra_specs"]
    assert {f"note:{number}" for number in range(24)} < specs.keys()


def test_of_many_who_make_the_same_flavor_one_does(api):
    name = f"same-{uuid.uuid4().hex[:8]}"
    body = {"flavor": {"name": name, "id": name, "vcpus": 1, "ram": 64, "disk": 1}}

    def make(_number: int) -> int:
        return api.at("2.90").post(f"{C}/flavors", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(make, range(8)))
    assert answers == [200, *[409] * 7]
    api.delete(f"{C}/flavors/{name}")
