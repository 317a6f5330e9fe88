# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Microversions 2.0 to 2.3 of the Accelerator API."""

from __future__ import annotations

import re
from typing import Any

import falcon

from accelsched.api import resources

MIN, MAX = 0, 3
"""Minor versions; the major one is 2."""

_HEADER = "OpenStack-API-Version"
_FORMAT = re.compile(r"2\.([0-9]{1,5})")


def requested(header: str | None) -> int:
    """Return the minor version of a request.

    :param header: of ``OpenStack-API-Version``, a list of ``SERVICE VERSION``
    :raises falcon.HTTPNotAcceptable: when it is one that is not served
    """
    for item in (header or "").split(","):
        service, _, version = item.strip().partition(" ")
        if service.lower() != "accelerator":
            continue
        if version.strip() == "latest":
            return MAX
        match = _FORMAT.fullmatch(version.strip())
        if match is None or not MIN <= int(match[1]) <= MAX:
            raise falcon.HTTPNotAcceptable(
                description=f"Version {version.strip()[:50]} is not served: there are 2.{MIN} to 2.{MAX}."
            )
        return int(match[1])
    return MIN


class Negotiation:
    """Falcon middleware: discovery is public; everything else wants a caller, and a version that there is."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Put the version into the request; refuse callers nobody knows."""
        req.context.minor = MIN
        if req.path in ("/", "/v2", "/v2/"):
            return
        resources.context_of(req)
        req.context.minor = requested(req.get_header(_HEADER))

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool) -> None:
        """Say which version answered and that answers vary by it."""
        resp.set_header(_HEADER, f"accelerator 2.{req.context.get('minor', MIN)}")
        resp.set_header("OpenStack-API-Minimum-Version", f"accelerator 2.{MIN}")
        resp.set_header("OpenStack-API-Maximum-Version", f"accelerator 2.{MAX}")
        resp.append_header("Vary", _HEADER)


def minor_of(req: falcon.Request) -> int:
    """Return the negotiated minor version of a request."""
    minor: int = req.context.minor
    return minor
