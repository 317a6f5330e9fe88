# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the ``rebuild`` action asks for, looked up and found to fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from accelsched import errors, wire
from accelsched.api.compute import passwords, server_create
from accelsched.compute import images
from accelsched.compute.rebuilding import Rebuild
from accelsched.context import RequestContext
from accelsched.db.compute import Server

if TYPE_CHECKING:
    from accelsched.api.services import Services

# Not done by this release: refused, because the server would not be what was asked for. Empty values ask for nothing.
_REFUSED = ("personality", "trusted_image_certificates")
# Columns of the keys that change one.
_COLUMNS = {
    "name": "name",
    "metadata": "metadata_",
    "user_data": "user_data",
    "description": "description",
    "hostname": "hostname",
    "accessIPv4": "access_ip_v4",
    "accessIPv6": "access_ip_v6",
}


def read(
    wanted: Mapping[str, Any],
    server: Server,
    *,
    context: RequestContext,
    services: Services,
    image_service: images.Images,
) -> Rebuild:
    """Return what a server is to be built anew from.

    :param wanted: the action's argument, of the version's schema
    :raises accelsched.errors.InvalidError: when it asks for what cannot be had
    :raises accelsched.errors.UnavailableError: when the image service does not answer
    """
    for key in _REFUSED:
        if wanted.get(key):
            raise errors.InvalidError(f"Invalid input for field/attribute rebuild.{key}: not done by this release.")
    image = server_create.find_image(server_create.last_part(wanted["imageRef"]), context, services, image_service)
    if image is None:
        raise errors.InvalidError("Invalid imageRef provided: this deployment has no image service.")
    images.check_fits(image, cast("wire.FlavorSpec", server.flavor))
    before = server.image["properties"] if server.image else {}
    for key, value in image["properties"].items():
        # The server stays on its host, which was chosen for the traits that the image had before.
        if key.startswith("trait:") and before.get(key) != value:
            raise errors.InvalidError(
                f"Image {image['id']} wants {key}={value}, for which the server's host was not chosen; "
                "create a new server"
            )
    server_create.check_user_data(wanted.get("user_data"))
    changes = {column: wanted[key] for key, column in _COLUMNS.items() if key in wanted}
    changes |= {column: changes[column] or None for column in ("access_ip_v4", "access_ip_v6") if column in changes}
    if "OS-DCF:diskConfig" in wanted:
        changes["auto_disk_config"] = wanted["OS-DCF:diskConfig"] == "AUTO"
    if "key_name" in wanted:
        with services.db.reading() as session:
            pair = server_create.find_key(session, server.user_id, wanted["key_name"])
        changes["key_name"], changes["public_key"] = (None, None) if pair is None else (pair.name, pair.public_key)
    return Rebuild(dict(image), changes, passwords.given_or_made(wanted, services.conf))
