# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Quotas: who may set them, what each version shows, and that nobody gets more, however many ask at once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

C = "/compute/v2.1"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC1CXKJbwaY3ihrJs6r7nF26fjPHBZUnyKbav0r4rUfC a@b"
OWN = {"instances", "cores", "ram", "metadata_items", "key_pairs", "server_groups", "server_group_members"}
FILES = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
NETWORK = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}


@pytest.fixture
def project() -> str:
    return f"quota-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def user(api, project) -> Any:
    return api.user(project)


def limit(api, project: str, **limits: Any) -> Any:
    return api.put(f"{C}/os-quota-sets/{project}", json={"quota_set": limits})


def ask(who: Any, flavor: str, count: int = 1, least: int | None = None, **beside: Any) -> Any:
    wanted = {"name": "q", "flavorRef": flavor, "networks": "none", "min_count": least or count, "max_count": count}
    return who.post(f"{C}/servers", json={"server": wanted | beside.pop("server", {}), **beside})


def why(response: Any) -> str:
    assert response.status_code == 403, response.text
    return response.json()["forbidden"]["message"]


def test_limits_are_set_shown_and_taken_away(api, project, user):
    path = f"{C}/os-quota-sets/{project}"
    before = user.get(path).json()["quota_set"]
    assert before == {"id": project, **user.get(f"{path}/defaults").json()["quota_set"]}
    changed = limit(api, project, instances=7, cores="9")
    assert changed.status_code == 200, changed.text
    assert changed.json()["quota_set"] == {**{k: v for k, v in before.items() if k != "id"}, "instances": 7, "cores": 9}
    assert user.get(path).json()["quota_set"] == {**before, "instances": 7, "cores": 9}
    absolute = user.get(f"{C}/limits").json()["limits"]["absolute"]
    assert (absolute["maxTotalInstances"], absolute["maxTotalCores"], absolute["totalInstancesUsed"]) == (7, 9, 0)
    assert api.delete(path).status_code == 202
    assert user.get(path).json()["quota_set"] == before
    for wrong in (
        {"instances": -2},
        {"instances": "x"},
        {"instances": 2**31},
        {"instances": "9999999999"},
        {"dogs": 1},
    ):
        assert limit(api, project, **wrong).status_code == 400
    assert api.put(f"{C}/os-quota-sets/{'x' * 256}", json={"quota_set": {}}).status_code == 400


def test_each_version_shows_what_it_knew(api, project):
    for minor, names in ((1, OWN | FILES | NETWORK), (36, OWN | FILES), (57, OWN)):
        who = api.at(f"2.{minor}")
        for suffix in ("", "/defaults", "/detail"):
            assert who.get(f"{C}/os-quota-sets/{project}{suffix}").json()["quota_set"].keys() == names | {"id"}
        # Nova's 2.50 took over here what 2.36 had said of networks, and what quota sets had always said of groups.
        class_names = (names | NETWORK) - {"server_groups", "server_group_members"} if minor < 50 else names
        assert who.get(f"{C}/os-quota-class-sets/default").json()["quota_class_set"].keys() == class_names | {"id"}


def test_users_see_their_own_and_change_nothing(api, project, user):
    path = f"{C}/os-quota-sets/{project}"
    stranger = api.user("quota-stranger")
    assert stranger.get(f"{path}/defaults").status_code == 200
    for refused in (
        stranger.get(path),
        stranger.get(f"{path}/detail"),
        limit(user, project, instances=100),
        user.delete(path),
        user.get(f"{C}/os-quota-class-sets/default"),
        user.put(f"{C}/os-quota-class-sets/default", json={"quota_class_set": {"cores": 1}}),
    ):
        assert refused.status_code == 403


def test_the_default_class_limits_projects_that_have_no_limit_of_their_own(api, project, user):
    path = f"{C}/os-quota-class-sets/default"
    configured = api.get(path).json()["quota_class_set"]["ram"]
    try:
        told = api.put(path, json={"quota_class_set": {"ram": 4096}})
        assert told.json()["quota_class_set"]["ram"] == 4096
        assert user.get(f"{C}/os-quota-sets/{project}").json()["quota_set"]["ram"] == 4096
        limit(api, project, ram=1)
        assert user.get(f"{C}/os-quota-sets/{project}").json()["quota_set"]["ram"] == 1
        assert user.get(f"{C}/os-quota-sets/{project}/defaults").json()["quota_set"]["ram"] == 4096
    finally:
        api.put(path, json={"quota_class_set": {"ram": configured}})


def test_a_create_gets_what_is_left_and_is_told_what_is_short(api, project, user, flavor, create):
    limit(api, project, instances=3, ram=64 * 5)
    create(who=user)
    assert ask(user, flavor, count=9, least=2).status_code == 202
    assert len(user.get(f"{C}/servers").json()["servers"]) == 3
    assert why(ask(user, flavor)) == "Quota exceeded for instances: Requested 1, but already used 3 of 3 instances"
    assert why(ask(user, flavor, count=3)) == (
        "Quota exceeded for instances, ram: Requested 3, 192, but already used 3, 192 of 3, 320 instances, ram"
    )
    detail = user.get(f"{C}/os-quota-sets/{project}/detail").json()["quota_set"]
    assert detail["instances"] == {"limit": 3, "in_use": 3, "reserved": 0}
    assert (detail["cores"]["in_use"], detail["ram"]["in_use"]) == (3, 192)
    refused = limit(api, project, instances=2)
    assert "already used and reserved 3" in refused.json()["badRequest"]["message"]
    assert limit(api, project, instances=2, force=True).status_code == 200
    assert limit(api, project, instances=-1).status_code == 200


def test_of_many_who_create_at_once_no_more_pass_than_may(api, project, user, flavor):
    limit(api, project, instances=5, key_pairs=3, server_groups=2)

    def race(_number: int) -> tuple[int, int, int]:
        mine, name = user.at("2.90"), f"n{uuid.uuid4().hex}"  # a session each: requests' are not made for threads
        group = {"server_group": {"name": name, "policy": "affinity"}}
        return (
            ask(mine, flavor).status_code,
            mine.post(f"{C}/os-keypairs", json={"keypair": {"name": name, "public_key": PUBLIC}}).status_code,
            mine.post(f"{C}/os-server-groups", json=group).status_code,
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(race, range(12)))
    servers, pairs, groups = (sorted(column) for column in zip(*answers, strict=True))
    assert servers == [202] * 5 + [403] * 7
    assert pairs == [201] * 3 + [403] * 9
    assert groups == [200] * 2 + [403] * 10
    for server in user.get(f"{C}/servers").json()["servers"]:
        assert user.delete(f"{C}/servers/{server['id']}").status_code == 204


def test_what_is_deleted_may_be_had_again(api, project, user):
    limit(api, project, key_pairs=1, server_groups=1)
    pair, group = {"name": "a", "public_key": PUBLIC}, {"name": "g", "policy": "affinity"}
    for _ in range(2):
        assert user.post(f"{C}/os-keypairs", json={"keypair": pair}).status_code == 201
        made = user.post(f"{C}/os-server-groups", json={"server_group": group}).json()["server_group"]["id"]
        refused = user.post(f"{C}/os-keypairs", json={"keypair": {**pair, "name": "b"}})
        assert why(refused) == "Quota exceeded, too many key pairs."
        refused = user.post(f"{C}/os-server-groups", json={"server_group": group})
        assert why(refused) == "Quota exceeded, too many server groups."
        user.delete(f"{C}/os-keypairs/a")
        user.delete(f"{C}/os-server-groups/{made}")


def test_metadata_and_groups_are_limited_for_each_server_and_group(api, project, user, flavor, create):
    limit(api, project, metadata_items=2, server_group_members=1)
    too_much = {"metadata": {"a": "1", "b": "2", "c": "3"}}
    assert why(ask(user, flavor, server=too_much)) == "Maximum number of metadata items exceeds 2"
    group = user.post(f"{C}/os-server-groups", json={"server_group": {"name": "g", "policy": "soft-affinity"}})
    hints = {"os:scheduler_hints": {"group": group.json()["server_group"]["id"]}}
    assert why(ask(user, flavor, count=2, **hints)) == "Quota exceeded, too many servers in group"
    create(who=user, beside=hints, metadata={"a": "1"})
    assert why(ask(user, flavor, **hints)) == "Quota exceeded, too many servers in group"
