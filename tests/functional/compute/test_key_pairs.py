# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Key pairs: whose they are, what each version says of them, and how a guest gets one."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import databases
import pytest
from sqlalchemy import update

from accelsched.agent.virt.libvirt import configdrive
from accelsched.compute import assignments, servers
from accelsched.db import migrations
from accelsched.db.compute import Server
from accelsched.db.engine import Database
from accelsched.db.instance_actions import Origin

C = "/compute/v2.1"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC1CXKJbwaY3ihrJs6r7nF26fjPHBZUnyKbav0r4rUfC a@b"


@pytest.fixture
def user(api) -> Any:
    return api.user(f"keys-{uuid.uuid4().hex[:8]}")


def make(who: Any, name: str, **values: Any) -> Any:
    return who.post(f"{C}/os-keypairs", json={"keypair": {"name": name, **values}})


def names(who: Any, query: str = "") -> list[str]:
    return [item["keypair"]["name"] for item in who.get(f"{C}/os-keypairs{query}").json()["keypairs"]]


def test_a_key_pair_is_imported_shown_and_deleted(user):
    made = make(user, "mine", public_key=PUBLIC, type="ssh")
    assert made.status_code == 201, made.text
    shown = user.get(f"{C}/os-keypairs/mine").json()["keypair"]
    assert made.json()["keypair"].items() < shown.items()
    assert (shown["deleted"], shown["public_key"]) == (False, PUBLIC)
    again = make(user, "mine", public_key=PUBLIC)
    assert again.json()["conflictingRequest"]["message"] == "Key pair 'mine' already exists."
    assert user.delete(f"{C}/os-keypairs/mine").status_code == 204
    assert user.get(f"{C}/os-keypairs/mine").status_code == 404
    assert user.delete(f"{C}/os-keypairs/mine").status_code == 404


def test_each_version_has_what_it_added(user):
    old = user.at("2.1")
    made = make(old, "made")
    assert made.status_code == 200
    assert made.json()["keypair"].keys() == {"name", "public_key", "private_key", "fingerprint", "user_id"}
    assert make(old, "a", type="ssh").status_code == 400
    assert make(user.at("2.2"), "cert", type="x509").json()["keypair"]["public_key"].startswith("-----BEGIN CERT")
    assert "type" not in old.get(f"{C}/os-keypairs/made").json()["keypair"]
    assert make(user.at("2.91"), "a@b.c", public_key=PUBLIC).status_code == 400
    assert make(user, "a@b.c", public_key=PUBLIC).status_code == 201
    assert make(user, "made-by-nobody").status_code == 400
    assert make(user, "nonsense", public_key="ssh-rsa nonsense").status_code == 400
    assert old.delete(f"{C}/os-keypairs/made").status_code == 202


def test_key_pairs_are_listed_page_by_page(user):
    for name in ("c", "a", "b"):
        make(user, name, public_key=PUBLIC)
    page = user.get(f"{C}/os-keypairs?limit=2").json()
    (link,) = page["keypairs_links"]
    rest = user.get(link["href"][link["href"].index(C) :]).json()
    assert [item["keypair"]["name"] for part in (page, rest) for item in part["keypairs"]] == ["a", "b", "c"]
    assert "keypairs_links" not in rest
    assert names(user.at("2.34"), "?limit=1") == ["a", "b", "c"]
    assert user.get(f"{C}/os-keypairs?marker=x").status_code == 400


def test_only_operators_have_to_do_with_the_key_pairs_of_others(api, user):
    owner = user.headers["X-Auth-Token"].split(":")[0]
    made = make(api, "theirs", public_key=PUBLIC, user_id=owner)
    assert made.status_code == 201
    assert made.json()["keypair"]["user_id"] == owner
    assert names(user) == names(api, f"?user_id={owner}") == ["theirs"]
    assert "theirs" not in names(api.at("2.9"), f"?user_id={owner}")
    stranger = api.user("keys-stranger")
    for refused in (
        stranger.get(f"{C}/os-keypairs?user_id={owner}"),
        stranger.get(f"{C}/os-keypairs/theirs?user_id={owner}"),
        stranger.delete(f"{C}/os-keypairs/theirs?user_id={owner}"),
        make(stranger, "other", public_key=PUBLIC, user_id=owner),
    ):
        assert refused.status_code == 403
    assert stranger.get(f"{C}/os-keypairs/theirs").status_code == 404


def test_a_guest_gets_the_key_that_its_server_was_made_with(tmp_path: Path):
    with databases.fresh("sqlite", tmp_path) as url:
        db = Database(url)
        migrations.upgrade(db)
        new = servers.NewServers(
            **{"project_id": "p", "user_id": "u", "name": "vm", "metadata": {}, "flavor": {}, "image": None},
            **{"user_data": None, "config_drive": False, "spec": {}, "min_count": 1, "max_count": 1},
            origin=Origin("req-1", "p", "u"),
            key=servers.Key("mine", PUBLIC),
        )
        db.transact(lambda session: servers.create(session, new))
        db.transact(lambda session: session.execute(update(Server).values(host="h")) and None)
        with db.reading() as session:
            (assignment,) = assignments.of_hosts(session, ["h"])
        db.dispose()
    assert configdrive.wanted(assignment)
    told = json.loads(configdrive.contents(assignment)["openstack/latest/meta_data.json"])
    assert told["public_keys"] == {"mine": PUBLIC}
    assert told["keys"] == [{"name": "mine", "type": "ssh", "data": PUBLIC}]
