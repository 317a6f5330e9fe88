# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefilters that require a trait of the host for something that the flavor or the image says."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable

import os_traits
from oslo_utils import strutils

from accelsched.placement.candidates import CandidateQuery
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.prefilters.base import Prefilter
from accelsched.scheduler.request import RequestSpec


class TraitPrefilter(Prefilter):
    """Requires traits of the host itself."""

    @abstractmethod
    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return the traits that the request implies."""

    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query with the traits required at the host."""
        implied = frozenset(self.traits(request))
        return dataclasses.replace(query, root_required=query.root_required | implied) if implied else query


def _trait(prefix: str, value: str) -> str:
    return prefix + value.upper().replace("-", "_").replace(".", "_")


def _said(request: RequestSpec, name: str) -> str | None:
    """Return what the flavor (``hw:name``) or else the image (``hw_name``) says."""
    spec = request.flavor["extra_specs"].get(f"hw:{name}")
    return request.image_properties.get(f"hw_{name}") if spec is None else spec


class ImageTypePrefilter(TraitPrefilter):
    """Nova's require_image_type_support: the host can boot the image's disk format."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return COMPUTE_IMAGE_TYPE_* of the image's format."""
        if self.conf.scheduler.query_placement_for_image_type_support and request.image is not None:
            yield _trait("COMPUTE_IMAGE_TYPE_", request.image["disk_format"])


class ImageMetadataPrefilter(TraitPrefilter):
    """Nova's transform_image_metadata: the host offers the virtual hardware that the image names."""

    _PREFIXES = (
        ("hw_cdrom_bus", "COMPUTE_STORAGE_BUS_"),
        ("hw_disk_bus", "COMPUTE_STORAGE_BUS_"),
        ("hw_video_model", "COMPUTE_GRAPHICS_MODEL_"),
        ("hw_vif_model", "COMPUTE_NET_VIF_MODEL_"),
        ("hw_architecture", "HW_ARCH_"),
        ("hw_emulation_architecture", "COMPUTE_ARCH_"),
        ("hw_viommu_model", "COMPUTE_VIOMMU_MODEL_"),
    )

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return the trait that each of the properties stands for."""
        if self.conf.scheduler.image_metadata_prefilter:
            for name, prefix in self._PREFIXES:
                if value := request.image_properties.get(name):
                    yield _trait(prefix, value)


class AcceleratorsPrefilter(TraitPrefilter):
    """Nova's accelerators_filter: a flavor with a device profile goes where accelerators can be attached."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return COMPUTE_ACCELERATORS for a flavor with accel:device_profile."""
        if request.flavor["extra_specs"].get("accel:device_profile"):
            yield os_traits.COMPUTE_ACCELERATORS


class PackedVirtqueuePrefilter(TraitPrefilter):
    """Nova's packed_virtqueue_filter."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return COMPUTE_NET_VIRTIO_PACKED when packed virtqueues are asked for."""
        if strutils.bool_from_string(_said(request, "virtio_packed_ring")):
            yield os_traits.COMPUTE_NET_VIRTIO_PACKED


class EphemeralEncryptionPrefilter(TraitPrefilter):
    """Nova's ephemeral_encryption_filter."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return the trait of encrypted local disks, and that of the format when one is asked for."""
        if not strutils.bool_from_string(_said(request, "ephemeral_encryption")):
            return
        yield os_traits.COMPUTE_EPHEMERAL_ENCRYPTION
        if format_ := _said(request, "ephemeral_encryption_format"):
            yield _trait("COMPUTE_EPHEMERAL_ENCRYPTION_", format_)


class VirtioSoundPrefilter(TraitPrefilter):
    """Nova's virtio_sound_filter."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return COMPUTE_SOUND_MODEL_VIRTIO when the sound device is to be virtio's."""
        if _said(request, "sound_model") == "virtio":
            yield os_traits.COMPUTE_SOUND_MODEL_VIRTIO


class TpmSecretSecurityPrefilter(TraitPrefilter):
    """Nova's tpm_secret_security_filter: who may open the secret of a virtual TPM, as the host keeps it."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return COMPUTE_SECURITY_TPM_SECRET_SECURITY_* for a server with a TPM whose flavor says which."""
        security = request.flavor["extra_specs"].get("hw:tpm_secret_security")
        if security and _said(request, "tpm_version"):
            yield _trait("COMPUTE_SECURITY_TPM_SECRET_SECURITY_", security)


class OwnerNovaPrefilter(TraitPrefilter):
    """Nova's owner_nova_filter: keeps off what Cyborg manages, where ``[scheduler] require_owner_trait`` says so."""

    def traits(self, request: RequestSpec) -> Iterable[str]:
        """Return OWNER_NOVA when it is to be required."""
        if self.conf.scheduler.require_owner_trait:
            yield os_traits.OWNER_NOVA
