# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Each prefilter does what Nova documents of its namesake."""

from __future__ import annotations

from typing import Any

import os_traits
import pytest
from fleets import PictureBuilder
from plugins_alone import aggregate, asked, made

from accelsched import conf as options
from accelsched.scheduler import plugins
from accelsched.scheduler.pipeline import Decision, decide
from accelsched.scheduler.prefilters.base import Prefilter
from accelsched.scheduler.prefilters.networks import RemoteManagedPortsPrefilter, RoutedNetworksPrefilter
from accelsched.scheduler.prefilters.traits import (
    AcceleratorsPrefilter,
    EphemeralEncryptionPrefilter,
    ImageMetadataPrefilter,
    ImageTypePrefilter,
    OwnerNovaPrefilter,
    PackedVirtqueuePrefilter,
    TpmSecretSecurityPrefilter,
    VirtioSoundPrefilter,
)
from accelsched.scheduler.request import RequestSpec

AZ1, AZ2 = aggregate("az1", availability_zone="one"), aggregate("az2", availability_zone="two")
P_ONLY = aggregate("p", filter_tenant_id="p")
TRAITS = aggregate("t", **{"trait:CUSTOM_LICENSED": "required", "trait:CUSTOM_FAST": "required"})


def placed(builder: PictureBuilder, spec: RequestSpec, **overrides: Any) -> tuple[set[str], Decision]:
    conf = options.new()
    options.parse(conf, [], "test")
    for name, value in overrides.items():
        conf.set_override(name, value, group="scheduler")
    decision = decide(builder.picture(), builder.hosts, spec, 1000, plugins.load(conf), "s")
    return {selection.host.name for selection in decision.selections}, decision


def fleet(**hosts: Any) -> PictureBuilder:
    builder = PictureBuilder()
    for name, fields in hosts.items():
        builder.host(name, cpus=2, **fields)
    return builder


@pytest.mark.parametrize(
    ("zone", "left"),
    [(None, {"a", "b", "c"}), ("one", {"a"}), ("two", {"b"}), ("nova", {"c"}), ("elsewhere", set())],
)
def test_a_server_stays_in_its_zone(zone: str | None, left: set[str]) -> None:
    builder = fleet(a={"aggregates": (AZ1,)}, b={"aggregates": (AZ2, P_ONLY)}, c={"aggregates": (P_ONLY,)})
    found, decision = placed(builder, asked(availability_zone=zone))
    assert found == left
    if not left:
        assert f"host not in availability zone {zone}" in (decision.explanation.failure or "")


@pytest.mark.parametrize(
    ("project", "overrides", "left"),
    [
        ("p", {}, {"a", "b"}),
        ("p", {"limit_tenants_to_placement_aggregate": True}, {"a"}),
        ("q", {"limit_tenants_to_placement_aggregate": True}, {"a", "b"}),
        (
            "q",
            {"limit_tenants_to_placement_aggregate": True, "placement_aggregate_required_for_tenants": True},
            set(),
        ),
    ],
)
def test_projects_go_to_the_hosts_set_aside_for_them(project: str, overrides: dict[str, bool], left: set[str]) -> None:
    builder = fleet(a={"aggregates": (P_ONLY,)}, b={})
    assert placed(builder, asked(project_id=project), **overrides)[0] == left


@pytest.mark.parametrize(
    ("specs", "enabled", "left"),
    [
        ({}, False, {"a", "b"}),
        ({}, True, {"b"}),
        ({"trait:CUSTOM_LICENSED": "required"}, True, set()),
        ({"trait:CUSTOM_LICENSED": "required", "trait:CUSTOM_FAST": "required"}, True, {"a"}),
    ],
)
def test_isolated_aggregates_take_only_who_requires_all_their_traits(
    specs: dict[str, str], enabled: bool, left: set[str]
) -> None:
    builder = fleet(a={"aggregates": (TRAITS,), "traits": ["CUSTOM_LICENSED", "CUSTOM_FAST"]}, b={})
    assert placed(builder, asked(specs), enable_isolated_aggregate_filtering=enabled)[0] == left


def test_a_disabled_host_gets_nothing_new() -> None:
    assert placed(fleet(a={"traits": [os_traits.COMPUTE_STATUS_DISABLED]}, b={}), asked())[0] == {"b"}


def test_a_forced_host_is_asked_for_its_name_and_nothing_else() -> None:
    builder = fleet(a={"silent_s": 1e6}, b={})
    assert placed(builder, asked(host="a", forced=True))[0] == {"a"}
    assert placed(builder, asked(host="a"))[0] == set()


SECURITY = "COMPUTE_SECURITY_TPM_SECRET_SECURITY_USER"


@pytest.mark.parametrize(
    ("kind", "overrides", "specs", "properties", "required"),
    [
        (ImageTypePrefilter, {}, {}, {}, set()),
        (
            ImageTypePrefilter,
            {"query_placement_for_image_type_support": True},
            {},
            {},
            {os_traits.COMPUTE_IMAGE_TYPE_QCOW2},
        ),
        (ImageMetadataPrefilter, {}, {}, {"hw_disk_bus": "virtio"}, set()),
        (
            ImageMetadataPrefilter,
            {"image_metadata_prefilter": True},
            {},
            {"hw_disk_bus": "virtio", "hw_cdrom_bus": "sata", "hw_architecture": "x86_64", "hw_vif_model": "e1000e"},
            {
                "COMPUTE_STORAGE_BUS_VIRTIO",
                "COMPUTE_STORAGE_BUS_SATA",
                "HW_ARCH_X86_64",
                "COMPUTE_NET_VIF_MODEL_E1000E",
            },
        ),
        (AcceleratorsPrefilter, {}, {"accel:device_profile": "p"}, {}, {os_traits.COMPUTE_ACCELERATORS}),
        (PackedVirtqueuePrefilter, {}, {"hw:virtio_packed_ring": "true"}, {}, {os_traits.COMPUTE_NET_VIRTIO_PACKED}),
        (PackedVirtqueuePrefilter, {}, {}, {"hw_virtio_packed_ring": "yes"}, {os_traits.COMPUTE_NET_VIRTIO_PACKED}),
        (PackedVirtqueuePrefilter, {}, {"hw:virtio_packed_ring": "false"}, {}, set()),
        (
            EphemeralEncryptionPrefilter,
            {},
            {"hw:ephemeral_encryption": "true", "hw:ephemeral_encryption_format": "luks"},
            {},
            {os_traits.COMPUTE_EPHEMERAL_ENCRYPTION, "COMPUTE_EPHEMERAL_ENCRYPTION_LUKS"},
        ),
        (VirtioSoundPrefilter, {}, {}, {"hw_sound_model": "virtio"}, {os_traits.COMPUTE_SOUND_MODEL_VIRTIO}),
        (VirtioSoundPrefilter, {}, {"hw:sound_model": "ich9"}, {}, set()),
        (TpmSecretSecurityPrefilter, {}, {"hw:tpm_version": "2.0", "hw:tpm_secret_security": "user"}, {}, {SECURITY}),
        (TpmSecretSecurityPrefilter, {}, {"hw:tpm_secret_security": "user"}, {}, set()),
        (OwnerNovaPrefilter, {}, {}, {}, set()),
        (OwnerNovaPrefilter, {"require_owner_trait": True}, {}, {}, {os_traits.OWNER_NOVA}),
        (RoutedNetworksPrefilter, {}, {}, {}, set()),
        (RemoteManagedPortsPrefilter, {}, {}, {}, set()),
    ],
)
def test_traits_are_required_for_what_flavor_and_image_say(
    kind: type[Prefilter],
    overrides: dict[str, Any],
    specs: dict[str, str],
    properties: dict[str, str],
    required: set[str],
) -> None:
    spec = asked(specs, properties)
    before = asked().query()
    after = made(kind, **overrides).apply(spec, before, PictureBuilder().hosts)
    assert after.root_required == required
    assert required <= {*os_traits.get_traits()}
    assert after.groups == before.groups
