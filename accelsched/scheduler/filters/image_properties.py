# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts that can run what the image was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from oslo_utils import versionutils

from accelsched.placement.picture import Mask
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec

# Other names for the same, as images and hosts have them.
_ARCHITECTURES = {"amd64": "x86_64", "x86": "i686", "i386": "i686", "i486": "i686", "i586": "i686", "arm64": "aarch64"}
_VM_MODES = {"hv": "hvm", "baremetal": "hvm", "pv": "xen"}
# What each way of running a guest can run; a simulated host stands for one with KVM.
_HYPERVISORS = {
    "kvm": frozenset({"kvm", "qemu"}),
    "qemu": frozenset({"qemu"}),
    "simulated": frozenset({"kvm", "qemu", "simulated"}),
}


class ImagePropertiesFilter(Filter):
    """Compares hw_architecture, img_hv_type, hw_vm_mode and img_hv_requested_version with the host's hypervisor.

    An image that does not say its architecture has ``image_properties_default_architecture``, if that is set.
    """

    once_per_request = True
    run_on_rebuild = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Compare with each kind of hypervisor: bool[len(hosts)]."""
        wanted = self._wanted(request)
        if not wanted:
            return np.ones(len(hosts), dtype=np.bool_)
        return hosts.by_hypervisor(lambda hypervisor: _runs(hypervisor, wanted), np.bool_)

    def reason(self, request: RequestSpec) -> str:
        """Name the properties."""
        return "the host does not run " + ", ".join(f"{k}={v}" for k, v in self._wanted(request).items())

    def _wanted(self, request: RequestSpec) -> dict[str, str]:
        properties = request.image_properties
        default = self.conf.filter_scheduler.image_properties_default_architecture
        asked = {
            "hw_architecture": properties.get("hw_architecture", default),
            "img_hv_type": properties.get("img_hv_type"),
            "hw_vm_mode": properties.get("hw_vm_mode"),
            "img_hv_requested_version": properties.get("img_hv_requested_version"),
        }
        return {name: value for name, value in asked.items() if value}


def _runs(hypervisor: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    architecture = wanted.get("hw_architecture", "").lower()
    if architecture and _ARCHITECTURES.get(architecture, architecture) != hypervisor.get("cpu_arch"):
        return False
    kind = wanted.get("img_hv_type", "").lower()
    virt_type = hypervisor.get("virt_type", "")
    if kind and kind not in _HYPERVISORS.get(virt_type, frozenset({virt_type})):
        return False
    mode = wanted.get("hw_vm_mode", "").lower()
    if mode and _VM_MODES.get(mode, mode) != "hvm":
        return False
    versions = wanted.get("img_hv_requested_version")
    return versions is None or _satisfied(versions, hypervisor.get("version"))


def _satisfied(versions: str, version: int | None) -> bool:
    if version is None:
        return False
    try:
        return bool(versionutils.VersionPredicate(versions).satisfied_by(versionutils.convert_version_to_str(version)))
    except ValueError:  # what is no predicate is met by nothing
        return False
