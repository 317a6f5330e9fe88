# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the ``resize`` action asks for, looked up and found to fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from accelsched import errors, wire
from accelsched.api.compute import server_create
from accelsched.compute import images, moving
from accelsched.context import RequestContext
from accelsched.db.compute import Server

if TYPE_CHECKING:
    from accelsched.api.services import Services


def read(wanted: Mapping[str, Any], server: Server, *, context: RequestContext, services: Services) -> moving.Move:
    """Return what a server is to become.

    :param wanted: the action's argument
    :raises accelsched.errors.InvalidError: when it asks for what cannot be had
    """
    with services.db.reading() as session:
        before = dict(moving.request_of(session, server).spec)
    asked = {"flavorRef": wanted["flavorRef"]}
    # Of the zone, its name only: a host that was forced when the server was made is not where it must go now.
    if before.get("availability_zone"):
        asked["availability_zone"] = before["availability_zone"]
    hints = {key: value for key, value in before.get("hints", {}).items() if key != "group"}
    order = server_create.look_up(
        asked,
        hints,
        project_id=server.project_id,
        context=context,
        services=services,
        image_service=None,
    )
    flavor = order.flavor
    if flavor.flavorid == server.flavor.get("id"):
        raise errors.InvalidError("When resizing, instances must change flavor!")
    has = int(server.flavor["disk_gb"])
    if has and not flavor.disk_gb:
        raise errors.InvalidError("Resize to zero disk flavor is not allowed.")
    if flavor.disk_gb < has:
        raise errors.InvalidError(f"Flavor {flavor.name} has {flavor.disk_gb} GiB of disk and the server {has}.")
    image = cast("wire.ImageSpec | None", server.image)
    if image is not None:
        images.check_fits(image, order.spec.flavor)
    spec = dataclasses.replace(order.spec, image=image, hints=before.get("hints", {}))
    spec.query()
    described = {"id": flavor.flavorid, "ephemeral_gb": flavor.ephemeral_gb, "swap_mb": flavor.swap_mb}
    return moving.Move(
        flavor={**order.spec.flavor, **described},
        spec=spec.to_dict(),
        same_host=services.conf.allow_resize_to_same_host,
    )
