# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Every command of osc-placement, run by the ``openstack`` client as it is, against ours behind a real Keystone."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack_client
import pytest

HOST = "aaaaaaaa-0000-4000-8000-0000000000c1"
GPU = "aaaaaaaa-0000-4000-8000-0000000000c2"
CONSUMER = "eeeeeeee-0000-4000-8000-0000000000c1"
AGGREGATE = "dddddddd-0000-4000-8000-0000000000c1"

COMMANDS = {entry.name.replace("_", " ") for entry in importlib.metadata.entry_points(group="openstack.placement.v1")}

Openstack = Callable[..., Any]


@pytest.fixture
def used() -> set[str]:
    """Return what collects the commands that were run."""
    return set()


@pytest.fixture
def openstack(clouds_file: Path, used: set[str]) -> Openstack:
    """Return what runs a command and gives its output, parsed."""

    def run(command: str, *, parsed: bool = True, version: str = "1.39", expect: int = 0) -> Any:
        login = ("--os-cloud", "accelsched", "--os-placement-api-version", version)
        ended = openstack_client.run(clouds_file, *login, *command.split(), *(("-f", "json") if parsed else ()))
        assert ended.status == expect, f"{command}: {ended.err}"
        used.add(max((name for name in COMMANDS if f"{command} ".startswith(f"{name} ")), key=len))
        if expect:
            return ended.err
        return json.loads(ended.out) if ended.out.strip() else None

    return run


def test_every_command_works(openstack: Openstack, used: set[str]) -> None:
    _make(openstack)
    _look(openstack)
    _allocate(openstack)
    _change(openstack)
    _take_down(openstack)
    assert used == COMMANDS


def _make(openstack: Openstack) -> None:
    openstack(f"resource provider create osc-host --uuid {HOST}")
    made = openstack(f"resource provider create osc-gpu --uuid {GPU} --parent-provider {HOST}")
    assert (made["uuid"], made["parent_provider_uuid"], made["root_provider_uuid"]) == (GPU, HOST, HOST)
    openstack(f"resource provider inventory set {HOST} --resource VCPU=8 --resource MEMORY_MB=4096")
    openstack(f"resource provider inventory set {GPU} --resource VGPU=4")
    openstack(f"resource provider inventory set {GPU} --amend --resource VGPU:max_unit=2")
    openstack(f"resource provider inventory class set {GPU} VGPU --total 5")
    openstack("trait create CUSTOM_OSC", parsed=False)
    openstack(f"resource provider trait set --trait CUSTOM_OSC {GPU}")
    openstack(f"resource provider aggregate set {HOST} --aggregate {AGGREGATE} --generation 1")
    openstack("resource class set CUSTOM_OSC", parsed=False)
    openstack("resource class set CUSTOM_OSC", parsed=False)
    openstack("resource class create CUSTOM_OSC_2", parsed=False)


def _look(openstack: Openstack) -> None:
    assert {row["name"] for row in openstack("resource provider list")} >= {"osc-host", "osc-gpu"}
    assert openstack(f"resource provider show {GPU}")["name"] == "osc-gpu"
    (inventory,) = openstack(f"resource provider inventory list {GPU}")
    assert (inventory["resource_class"], inventory["total"], inventory["used"]) == ("VGPU", 5, 0)
    assert openstack(f"resource provider inventory show {GPU} VGPU")["total"] == 5
    assert openstack(f"resource provider trait list {GPU}") == [{"name": "CUSTOM_OSC"}]
    assert openstack(f"resource provider aggregate list {HOST}") == [{"uuid": AGGREGATE}]
    assert {"name": "CUSTOM_OSC"} in openstack("trait list --associated")
    assert openstack("trait list --name startswith:CUSTOM_OSC") == [{"name": "CUSTOM_OSC"}]
    assert openstack("trait show CUSTOM_OSC") == {"name": "CUSTOM_OSC"}
    assert {"name": "CUSTOM_OSC"} in openstack("resource class list")
    assert openstack("resource class show CUSTOM_OSC_2") == {"name": "CUSTOM_OSC_2"}
    lists = {
        f"--resource VGPU=1 --required CUSTOM_OSC --in-tree {HOST}": [GPU],
        f"--aggregate-uuid {AGGREGATE} --forbidden CUSTOM_OSC": [HOST],
        f"--member-of {AGGREGATE} --forbidden CUSTOM_OSC": [HOST],
        "--name osc-gpu": [GPU],
        f"--uuid {HOST}": [HOST],
    }
    for options, uuids in lists.items():
        assert [row["uuid"] for row in openstack(f"resource provider list {options}")] == uuids, options


def _allocate(openstack: Openstack) -> None:
    openstack(
        f"resource provider allocation set {CONSUMER} --allocation rp={HOST},VCPU=2 --allocation rp={GPU},VGPU=1 "
        "--project-id p --user-id u --consumer-type INSTANCE"
    )
    held = openstack(f"resource provider allocation show {CONSUMER}")
    assert {row["resource_provider"]: row["resources"] for row in held} == {HOST: {"VCPU": 2}, GPU: {"VGPU": 1}}
    used = {row["resource_class"]: row["usage"] for row in openstack(f"resource provider usage show {HOST}")}
    assert used == {"VCPU": 2, "MEMORY_MB": 0}
    for options in ("", " --user-id u"):
        (usage,) = openstack(f"resource usage show p{options}")
        assert usage == {"resource_class": "INSTANCE", "usage": {"VCPU": 2, "VGPU": 1, "consumer_count": 1}}
    rows = openstack("allocation candidate list --resource VCPU=1 --group 1 --resource VGPU=1 --required CUSTOM_OSC")
    assert {row["resource provider"]: row["allocation"] for row in rows} == {HOST: "VCPU=1", GPU: "VGPU=1"}
    said = openstack(
        f"resource provider allocation set {CONSUMER} --allocation rp={GPU},VGPU=99 --project-id p --user-id u "
        "--consumer-type INSTANCE",
        expect=1,
    )
    assert "Unable to allocate inventory" in said
    assert "VGPU" in said
    said = openstack(f"resource provider delete {GPU}", parsed=False, expect=1)
    assert "HTTP 409" in said

    openstack(f"resource provider allocation unset {CONSUMER} --provider {GPU}")
    assert set(openstack(f"resource provider show --allocations {HOST}")["allocations"]) == {CONSUMER}


def _change(openstack: Openstack) -> None:
    changed = openstack(f"resource provider set {GPU} --name osc-gpu-2 --parent-provider {HOST}")
    assert (changed["name"], changed["parent_provider_uuid"]) == ("osc-gpu-2", HOST)
    (row,) = openstack(f"resource provider inventory set {AGGREGATE} --aggregate --resource VCPU=16", version="1.13")
    assert (row["resource_provider"], row["total"]) == (HOST, 16)


def _take_down(openstack: Openstack) -> None:
    openstack(f"resource provider allocation delete {CONSUMER}", parsed=False)
    openstack(f"resource provider trait delete {GPU}", parsed=False)
    openstack("trait delete CUSTOM_OSC", parsed=False)
    openstack("resource class delete CUSTOM_OSC", parsed=False)
    openstack("resource class delete CUSTOM_OSC_2", parsed=False)
    openstack(f"resource provider inventory delete {HOST} --resource-class VCPU", parsed=False)
    for provider in (GPU, HOST):
        openstack(f"resource provider inventory delete {provider}", parsed=False)
        openstack(f"resource provider delete {provider}", parsed=False)
    assert not {HOST, GPU} & {row["uuid"] for row in openstack("resource provider list")}
