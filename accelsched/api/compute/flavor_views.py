# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Flavors as answers show them, by microversion."""

from __future__ import annotations

from typing import Any

from accelsched.api.compute.microversion import Version
from accelsched.db.compute import Flavor


def links(prefix: str, flavorid: str) -> list[dict[str, str]]:
    """Return a flavor's links."""
    bookmark = prefix.removesuffix("/v2.1")
    return [
        {"rel": "self", "href": f"{prefix}/flavors/{flavorid}"},
        {"rel": "bookmark", "href": f"{bookmark}/flavors/{flavorid}"},
    ]


def brief(flavor: Flavor, prefix: str, version: Version) -> dict[str, Any]:
    """Return what a list without details shows."""
    shown: dict[str, Any] = {"id": flavor.flavorid, "name": flavor.name, "links": links(prefix, flavor.flavorid)}
    if version.minor >= 55:
        shown["description"] = flavor.description
    return shown


def full(flavor: Flavor, prefix: str, version: Version, *, with_extra_specs: bool) -> dict[str, Any]:
    """Return everything that a version shows of a flavor.

    :param with_extra_specs: whether policy lets the caller see them (2.61)
    """
    shown = brief(flavor, prefix, version) | {
        "ram": flavor.ram_mb,
        "disk": flavor.disk_gb,
        "swap": flavor.swap_mb or (0 if version.minor >= 75 else ""),
        "vcpus": flavor.vcpus,
        "rxtx_factor": flavor.rxtx_factor,
        "os-flavor-access:is_public": flavor.is_public,
        "OS-FLV-DISABLED:disabled": flavor.disabled,
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gb,
    }
    if version.minor >= 61 and with_extra_specs:
        shown["extra_specs"] = dict(flavor.extra_specs)
    return shown
