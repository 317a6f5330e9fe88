# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from accelsched import errors, wire
from accelsched.scheduler import request


def flavor(**extra_specs: str) -> wire.FlavorSpec:
    specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
    return {"name": "f", "vcpus": 2, "ram_mb": 512, "disk_gb": 3, "extra_specs": specs}


def test_a_flavor_without_extra_specs_asks_for_its_size() -> None:
    (group,) = request.build(flavor(), None, project_id="p").query().groups
    assert (group.suffix, group.resources) == ("", {"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3})


def test_resources_override_the_size_and_zero_takes_it_back() -> None:
    spec = request.build(flavor(resources__VCPU="7", resources__DISK_GB="0", resources__VGPU="1"), None, project_id="p")
    assert spec.query().groups[0].resources == {"VCPU": 7, "MEMORY_MB": 512, "VGPU": 1}


def test_suffixed_specs_make_groups_of_their_own() -> None:
    spec = request.build(
        flavor(
            resources1__VGPU="1",
            trait1__CUSTOM_A="required",
            resources_2__FPGA="1",
            trait_2__HW_X="forbidden",
            group_policy="isolate",
        ),
        None,
        project_id="p",
    )
    query = spec.query()
    assert [group.suffix for group in query.groups] == ["", "1", "_2"]
    assert query.groups[1].required == (frozenset({"CUSTOM_A"}),)
    assert query.groups[2].forbidden == {"HW_X"}
    assert query.isolate


def test_an_image_may_require_traits() -> None:
    image: wire.ImageSpec = {
        "id": "i",
        "name": "i",
        "disk_format": "raw",
        "size": 1,
        "min_disk_gb": 0,
        "min_ram_mb": 0,
        "os_hash_algo": None,
        "os_hash_value": None,
        "properties": {"trait:HW_CPU_X86_AVX2": "required"},
    }
    query = request.build(flavor(), image, project_id="p").query()
    assert query.groups[0].required == (frozenset({"HW_CPU_X86_AVX2"}),)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("resources:VGPU", "one", "resources:VGPU"),
        ("resources:VGPU", "-1", "resources:VGPU"),
        ("resources:VGPU", str(2**31), "resources:VGPU"),
        ("resources1:vgpu", "1", "resources1:vgpu"),
        ("trait:CUSTOM_A", "maybe", "trait:CUSTOM_A"),
        ("group_policy", "any", "group_policy"),
        ("pci_passthrough:alias", "a:1", "pci_passthrough:alias"),
    ],
)
def test_a_wrong_extra_spec_is_named(key: str, value: str, said: str) -> None:
    wrong: wire.FlavorSpec = {**flavor(), "extra_specs": {key: value}}  # type: ignore[typeddict-item]
    with pytest.raises(errors.InvalidError, match=said):
        request.build(wrong, None, project_id="p")


def test_a_trait_both_required_and_forbidden_is_refused() -> None:
    image_says = {"trait:CUSTOM_A": "forbidden"}
    image: wire.ImageSpec = {
        "id": "i",
        "name": "i",
        "disk_format": "raw",
        "size": 1,
        "min_disk_gb": 0,
        "min_ram_mb": 0,
        "os_hash_algo": None,
        "os_hash_value": None,
        "properties": image_says,
    }
    with pytest.raises(errors.InvalidError, match="CUSTOM_A"):
        request.build(flavor(trait__CUSTOM_A="required"), image, project_id="p")


def test_a_request_survives_its_way_through_the_database() -> None:
    spec = request.build(flavor(resources__VGPU="1"), None, project_id="p", host="h", hints={"a": ["b"]})
    assert request.RequestSpec.from_dict(spec.to_dict()) == spec
