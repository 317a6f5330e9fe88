# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The real Keystone and Glance come up, know who they should, and serve the guest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from keystoneauth1 import exceptions as ks_exceptions
from stack import accounts, clouds, guest, http
from stack.identity import Keystone
from stack.image import Glance, Images

ACCELSCHED_URL = "http://127.0.0.1:8790"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keystone, Glance]]:
    state = tmp_path_factory.mktemp("stack")
    keystone = Keystone(state, http.free_port(), hash_rounds=4)
    glance = Glance(state, keystone, http.free_port())
    try:
        keystone.start()
        glance.start()
        accounts.ensure(keystone, accounts.catalog(glance.url, ACCELSCHED_URL))
        yield keystone, glance
    finally:
        glance.stop()
        keystone.stop()


def test_the_catalog_leads_to_every_service(stack: tuple[Keystone, Glance]) -> None:
    keystone, glance = stack
    session = keystone.session("demo", "demo")
    expected = accounts.catalog(glance.url, ACCELSCHED_URL)
    for service_type, (_, url) in expected.items():
        for interface in ("public", "internal", "admin"):
            assert session.get_endpoint(service_type=service_type, interface=interface, region_name="RegionOne") == url


def test_the_service_user_has_the_roles_admin_and_service(stack: tuple[Keystone, Glance]) -> None:
    keystone, _ = stack
    session = keystone.session("accelsched", "service")
    assert {"admin", "service"} <= set(session.auth.get_access(session).role_names)


def test_ensuring_the_accounts_again_changes_nothing_and_a_moved_service_changes_its_urls(
    stack: tuple[Keystone, Glance],
) -> None:
    keystone, glance = stack
    entries = accounts.catalog(glance.url, ACCELSCHED_URL)
    assert accounts.ensure(keystone, entries) == 0
    moved = {**entries, "accelsched": ("accelsched", "http://127.0.0.1:8791/v1")}
    assert accounts.ensure(keystone, moved) == 3
    assert keystone.session().get_endpoint(service_type="accelsched") == "http://127.0.0.1:8791/v1"
    assert accounts.ensure(keystone, entries) == 3


def test_a_second_start_finds_what_runs(stack: tuple[Keystone, Glance]) -> None:
    keystone, glance = stack
    pids = (keystone.daemon.pid(), glance.daemon.pid())
    assert not keystone.start()
    assert not glance.start()
    assert (keystone.daemon.pid(), glance.daemon.pid()) == pids


def test_the_guest_is_uploaded_once_and_refers_to_its_kernel_and_ramdisk(stack: tuple[Keystone, Glance]) -> None:
    keystone, glance = stack
    images = Images(keystone.session(), glance.url)
    built = guest.build()
    image = images.ensure_guest(built)
    assert image["status"] == "active"
    assert image["size"] == built.disk.stat().st_size
    assert images.ensure_guest(built)["id"] == image["id"]
    session = keystone.session("demo", "demo")
    kernel = session.get(f"{glance.url}/v2/images/{image['kernel_id']}").json()
    ramdisk = session.get(f"{glance.url}/v2/images/{image['ramdisk_id']}").json()
    assert (kernel["container_format"], ramdisk["container_format"]) == ("aki", "ari")
    assert session.get(f"{glance.url}/v2/images/{kernel['id']}/file").content == built.kernel.read_bytes()


def test_a_newer_guest_takes_the_name_of_an_older_one(stack: tuple[Keystone, Glance]) -> None:
    keystone, glance = stack
    images = Images(keystone.session(), glance.url)
    built = guest.build()
    older = images.ensure_guest(built)
    newer = images.ensure_guest(dataclasses.replace(built, version="newer"))
    named = keystone.session("demo", "demo").get(f"{glance.url}/v2/images?name={older['name']}").json()["images"]
    assert [one["id"] for one in named] == [newer["id"]] != [older["id"]]


def test_glance_turns_strangers_away(stack: tuple[Keystone, Glance]) -> None:
    keystone, glance = stack
    with pytest.raises(ks_exceptions.Unauthorized):
        keystone.session().get(f"{glance.url}/v2/images", authenticated=False)


def test_secrets_are_private_and_in_no_log(stack: tuple[Keystone, Glance], tmp_path: Path) -> None:
    keystone, glance = stack
    state = keystone.passwords.path.parent
    clouds.write(tmp_path / "clouds.yaml", keystone)
    private = [tmp_path / "clouds.yaml", keystone.passwords.path, *(state / "keystone").rglob("*-keys/*")]
    assert len(private) >= 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    logs = keystone.daemon.log.read_text() + glance.daemon.log.read_text()
    assert not any(keystone.passwords.get(user) in logs for user in ("admin", "glance", "demo", "accelsched"))
