# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Microversions 2.1 to 2.96: what a client asks for, and what it is told it got."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import falcon

from accelsched.api import resources

_FORMAT = re.compile(r"^([1-9][0-9]*)\.([1-9][0-9]*|0)$")
_OWN = "X-OpenStack-Nova-API-Version"
_COMMON = "OpenStack-API-Version"


class Version(NamedTuple):
    """A microversion; compares as numbers do."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MIN = Version(2, 1)
MAX = Version(2, 96)


def requested(common: str | None, own: str | None) -> Version:
    """Return the microversion of a request.

    :param common: value of ``OpenStack-API-Version``, a list of ``SERVICE VERSION``; wins over ``own``
    :param own: value of ``X-OpenStack-Nova-API-Version``
    :raises falcon.HTTPBadRequest: when it is no version
    :raises falcon.HTTPNotAcceptable: when it is one that is not served
    """
    text = own
    for item in (common or "").split(","):
        service, _, version = item.strip().partition(" ")
        if service.lower() == "compute":
            text = version.strip()
            break
    if text is None:
        return MIN
    if text == "latest":
        return MAX
    match = _FORMAT.match(text)
    if match is None:
        raise falcon.HTTPBadRequest(
            description=f"API Version String {text[:50]} is of invalid format. Must be of format MajorNum.MinorNum."
        )
    version_ = Version(int(match[1]), int(match[2]))
    if not MIN <= version_ <= MAX:
        raise falcon.HTTPNotAcceptable(
            description=f"Version {version_} is not supported by the API. Minimum is {MIN} and maximum is {MAX}."
        )
    return version_


class Negotiation:
    """Falcon middleware: first who asks, then the version (``req.context.version``), then everything else."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Put the version into the request; refuse callers nobody knows."""
        req.context.version = MIN
        if req.path == "/":
            return
        resources.context_of(req)
        req.context.version = requested(req.get_header(_COMMON), req.get_header(_OWN))

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool) -> None:
        """Say which version answered and that answers vary by it."""
        version = req.context.get("version", MIN)
        resp.set_header(_COMMON, f"compute {version}")
        resp.set_header(_OWN, str(version))
        resp.set_header("OpenStack-API-Minimum-Version", f"compute {MIN}")
        resp.set_header("OpenStack-API-Maximum-Version", f"compute {MAX}")
        resp.append_header("Vary", f"{_COMMON}, {_OWN}")


def version_of(req: falcon.Request) -> Version:
    """Return the negotiated version of a request."""
    version: Version = req.context.version
    return version


def need(req: falcon.Request, minor: int) -> None:
    """Pretend that a route is not there below a microversion, as Nova does.

    :raises falcon.HTTPNotFound: below ``2.minor``
    """
    if version_of(req).minor < minor:
        raise falcon.HTTPNotFound(description="The resource could not be found.")
