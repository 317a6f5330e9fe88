# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1`` as a Falcon application."""

from __future__ import annotations

from typing import TYPE_CHECKING

import falcon

from accelsched.api import attaching, deciding, faults, resources
from accelsched.api.operator import (
    accelerators,
    agents,
    capacity_rules,
    devices,
    explanations,
    pictures,
    placements,
    programming,
    versions,
)
from accelsched.compute import images

if TYPE_CHECKING:
    from accelsched.api.services import Services


class _Identity:
    """Discovery is public, everything else wants a caller."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if req.path != "/":
            resources.context_of(req)


def create(services: Services, decides: deciding.Deciding) -> resources.App:
    """Return the application at ``/v1``."""
    app = resources.new_app(_Identity())
    app.add_route("/", versions.Version())
    app.add_route("/agents", agents.Agents(services))
    app.add_route("/devices", devices.Devices(services))
    app.add_route("/devices/{uuid}", devices.Device(services))
    app.add_route("/picture", pictures.FleetPicture(services))
    attaches = attaching.Attaching(services, decides)
    app.add_route("/placements:simulate", placements.Simulation(services, images.Images(services.conf), decides))
    app.add_route("/resource_providers/{uuid}/capacity_rule", capacity_rules.CapacityRule(services))
    app.add_route("/servers/{uuid}/accelerators", accelerators.Accelerators(services, attaches))
    app.add_route("/servers/{uuid}/accelerators/{accelerator_id}", accelerators.Accelerator(services, attaches))
    app.add_route("/servers/{uuid}/explanation", explanations.Explanation(services))
    app.add_route("/servers/{uuid}/programming", programming.Programming(services))
    resources.answer_errors(app, faults.coded_errors_list)
    return app
