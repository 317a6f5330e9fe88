# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Which microversion a request asks for. The major version is always 1, so a version is known by its minor number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

HEADER = "openstack-api-version"
SERVICE = "placement"
MIN_MINOR = 0
MAX_MINOR = 39
MIN_VERSION = f"1.{MIN_MINOR}"
MAX_VERSION = f"1.{MAX_MINOR}"

# From which version on:
LAST_MODIFIED = 15  # answers carry last-modified and cache-control
ERROR_CODES = 23  # errors carry a code


class MalformedVersionError(ValueError):
    """The header does not hold a version."""


class UnknownVersionError(ValueError):
    """The header holds a version that does not exist."""


def parse(header: str | None) -> int:
    """Return the minor version that an ``OpenStack-API-Version`` header asks for.

    :param header: the header's value; a list of them is folded with commas, and the last for this service counts
    :returns: 0 when it says nothing about this service
    :raises MalformedVersionError: it is not ``latest`` and not of the form X.Y
    :raises UnknownVersionError: it is not from 1.0 to 1.39
    """
    for item in reversed((header or "").split(",")):
        service, _, version = item.strip().partition(" ")
        if service.lower() == SERVICE and version.strip():
            return _minor(version.strip())
    return MIN_MINOR


def _minor(version: str) -> int:
    if version == "latest":
        return MAX_MINOR
    try:
        major, minor = (int(part) for part in version.split(".", 1))
    except ValueError as exc:
        raise MalformedVersionError(f"invalid version string: {version}") from exc
    if major != 1 or not MIN_MINOR <= minor <= MAX_MINOR:
        raise UnknownVersionError(f"Unacceptable version header: {version}")
    return minor


def pick(choices: Mapping[int, T], minor: int) -> T:
    """Return what holds at a version, of choices by the minor version that introduced each."""
    return choices[max(since for since in choices if since <= minor)]
