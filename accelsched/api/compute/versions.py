# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Version discovery, as keystoneauth expects it of a compute service."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched.api.compute import microversion

_UPDATED = "2013-07-23T11:33:21Z"  # when Nova's v2.1 was declared


def _document(href: str) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": str(microversion.MAX),
        "min_version": str(microversion.MIN),
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": href}],
    }


class Versions:
    """``GET /compute/``: every version below."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the one version there is."""
        resp.media = {"versions": [_document(f"{req.prefix}/v2.1/")]}


class Version:
    """``GET /compute/v2.1/``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Describe this version."""
        media_type = "application/vnd.openstack.compute+json;version=2.1"
        document = _document(f"{req.prefix}/")
        document["media-types"] = [{"base": "application/json", "type": media_type}]
        resp.media = {"version": document}
