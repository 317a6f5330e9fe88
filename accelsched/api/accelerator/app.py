# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Accelerator API v2: Cyborg's, as far as it is about accelerators of servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from accelsched.api import attaching, faults, resources
from accelsched.api.accelerator import accelerator_requests, deployables, device_profiles, microversion

if TYPE_CHECKING:
    from accelsched.api.deciding import Deciding
    from accelsched.api.services import Services


def create(services: Services, decides: Deciding) -> resources.App:
    """Return the application at ``/accelerator``."""
    attaches = attaching.Attaching(services, decides)
    app = resources.new_app(microversion.Negotiation())
    app.add_route("/", _Versions())
    app.add_route("/v2", _Version())
    app.add_route("/v2/", _Version())
    app.add_route("/v2/device_profiles", device_profiles.Profiles(services))
    app.add_route("/v2/device_profiles/{name_or_uuid}", device_profiles.Profile(services))
    app.add_route("/v2/accelerator_requests", accelerator_requests.Requests(services, attaches))
    app.add_route("/v2/accelerator_requests/{uuid}", accelerator_requests.Request(services, attaches))
    app.add_route("/v2/devices", deployables.Devices(services))
    app.add_route("/v2/devices/{uuid}", deployables.Device(services))
    app.add_route("/v2/devices/{uuid}/enable", deployables.Enable(services))
    app.add_route("/v2/devices/{uuid}/disable", deployables.Disable(services))
    app.add_route("/v2/deployables", deployables.Deployables(services))
    app.add_route("/v2/deployables/{uuid}", deployables.Deployable(services))
    app.add_route("/v2/attributes", deployables.Attributes(services))
    app.add_route("/v2/attributes/{uuid}", deployables.Attribute(services))
    resources.answer_errors(app, faults.accelerator)
    return app


def _document(base: str) -> dict[str, Any]:
    return {
        "id": "v2.0",
        "status": "CURRENT",
        "min_version": "2.0",
        "max_version": f"2.{microversion.MAX}",
        "links": [{"rel": "self", "href": f"{base}/v2/"}],
    }


class _Versions:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        document = _document(req.prefix)
        resp.media = {"name": "OpenStack Accelerator API", "default_version": document, "versions": [document]}


class _Version:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"version": _document(req.prefix)}
