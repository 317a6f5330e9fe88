# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The config drive, read back as a guest reads it."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pycdlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched import names
from accelsched.agent.virt.base import BuildError
from accelsched.agent.virt.libvirt import configdrive


def read(image: bytes, path: str, namespace: str) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    data = io.BytesIO()
    iso.get_file_from_iso_fp(data, **{namespace: f"/{path}"})
    iso.close()
    return data.getvalue()


@pytest.mark.parametrize("namespace", ["rr_path", "joliet_path"])
def test_a_guest_finds_what_its_owner_gave_it(assignment_for: Any, namespace: str) -> None:
    script = b"#!/bin/sh\necho hello\n"
    server = assignment_for(
        metadata={"role": "web"},
        user_data=base64.b64encode(script).decode(),
        key_name="mine",
        public_key="ssh-ed25519 AAAA me",
    )
    files = configdrive.contents(server)
    image = configdrive.iso_image(files)
    for path, data in files.items():
        assert read(image, path, namespace) == data
    assert read(image, "openstack/latest/user_data", namespace) == script
    meta_data = json.loads(read(image, "openstack/2012-08-10/meta_data.json", namespace))
    assert meta_data["uuid"] == server["server_uuid"]
    assert meta_data["hostname"] == "web-1"
    assert meta_data["meta"] == {"role": "web"}
    assert meta_data["public_keys"] == {"mine": "ssh-ed25519 AAAA me"}


def test_the_file_system_has_the_label_guests_look_for(assignment_for: Any) -> None:
    image = configdrive.iso_image(configdrive.contents(assignment_for()))
    # ECMA-119, 8.4.8: the volume identifier is at offset 40 of the descriptor in sector 16.
    assert image[16 * 2048 + 40 : 16 * 2048 + 72].rstrip() == b"config-2"


def test_a_guest_is_told_its_interface_and_its_password_where_it_has_them(assignment_for: Any) -> None:
    server = assignment_for()

    def told(name: str, *arguments: Any) -> Any:
        return json.loads(configdrive.contents(*arguments)[f"openstack/latest/{name}.json"])

    assert told("network_data", server)["links"] == []
    assert "admin_pass" not in told("meta_data", server)
    network = told("network_data", server, "default")
    assert network["links"][0]["ethernet_mac_address"] == names.mac_address(server["server_uuid"])
    assert (network["networks"][0]["type"], network["networks"][0]["link"]) == ("ipv4_dhcp", network["links"][0]["id"])
    assert told("meta_data", {**server, "admin_pass": "secret"})["admin_pass"] == "secret"


def test_a_server_without_user_data_has_none(assignment_for: Any) -> None:
    assert "openstack/latest/user_data" not in configdrive.contents(assignment_for())


@pytest.mark.parametrize("user_data", ["not base64!", base64.b64encode(b"x" * 70_000).decode()])
def test_bad_user_data_fails_the_build(assignment_for: Any, user_data: str) -> None:
    with pytest.raises(BuildError, match="user data"):
        configdrive.contents(assignment_for(user_data=user_data))


def test_one_is_made_when_asked_for_or_when_it_is_the_only_way(assignment_for: Any) -> None:
    assert not configdrive.wanted(assignment_for())
    assert configdrive.wanted(assignment_for(config_drive=True))
    assert configdrive.wanted(assignment_for(user_data="eA=="))
    assert configdrive.wanted(assignment_for(public_key="ssh-rsa A"))


@given(st.text())
def test_a_host_name_is_one_label(name: str) -> None:
    hostname = configdrive.hostname(name)
    assert 1 <= len(hostname) <= 63
    assert hostname.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
    assert hostname[0] != "-" != hostname[-1]
