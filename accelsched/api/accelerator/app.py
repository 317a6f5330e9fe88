# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Accelerator API v2: discovery; its resources are still to come, and say so by not being there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from accelsched.api import faults, resources

if TYPE_CHECKING:
    from accelsched.api.services import Services


def create(services: Services) -> resources.App:
    """Return the application at ``/accelerator``."""
    app = resources.new_app(_Identity())
    app.add_route("/", _Versions())
    app.add_route("/v2", _Version())
    app.add_route("/v2/", _Version())
    resources.answer_errors(app, faults.accelerator)
    return app


class _Identity:
    """Discovery is public, everything else wants a caller."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.path not in ("/", "/v2", "/v2/"):
            resources.context_of(req)


def _document(base: str) -> dict[str, Any]:
    return {
        "id": "v2.0",
        "status": "CURRENT",
        "min_version": "2.0",
        "max_version": "2.0",
        "links": [{"rel": "self", "href": f"{base}/v2/"}],
    }


class _Versions:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        document = _document(req.prefix)
        resp.media = {"name": "OpenStack Accelerator API", "default_version": document, "versions": [document]}


class _Version:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"version": _document(req.prefix)}
