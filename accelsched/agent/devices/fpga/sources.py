# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Where bitstreams come from: Glance, by what a flavor or the operator names, checked before they are used.

An image says ``accel:function_id`` and ``accel:interface_id`` of its bitstream; the bitstream's own header, where it
has one, must say the same. One that says nowhere for which interface it is made is refused, as is one without checksum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelsched import errors
from accelsched.agent.devices.base import DeviceError
from accelsched.agent.devices.fpga.cards import Label, Region
from accelsched.agent.images import Image, ImageClient
from accelsched.bitstreams import Wanted, uuid_of

BITSTREAM_ID, FUNCTION_ID, INTERFACE_ID = "accel:bitstream_id", "accel:function_id", "accel:interface_id"


def look_up(client: ImageClient, wanted: Wanted, project_id: str) -> Image:
    """Return the image that a flavor names: by its id or, of those that are public or the project's, by a property.

    :raises DeviceError: when there is none, or more than one
    """
    try:
        if wanted.kind == "bitstream_id":
            try:
                return client.show(wanted.value)
            except errors.NotFoundError:
                pass
        name = BITSTREAM_ID if wanted.kind == "bitstream_id" else FUNCTION_ID
        found = [one for one in client.find(name, wanted.value) if one.public or one.owner == project_id]
    except errors.UnavailableError as exc:
        raise DeviceError(f"the bitstream with {wanted.kind} {wanted.value} could not be looked up") from exc
    if len(found) != 1:
        what = "no image" if not found else f"{len(found)} images"
        raise DeviceError(f"{what} with {name} {wanted.value}, public or of the server's project; one is needed")
    return found[0]


def fetch(
    client: ImageClient,
    image: Image,
    path: Path,
    max_bytes: int,
    check: Callable[[], None],
    received: Callable[[int], None],
) -> None:
    """Download a bitstream whose checksum is known.

    :raises DeviceError: when it has none, is not what that says, is too large, or cannot be had
    """
    if not image.hash_algorithm or not image.hash_value:
        raise DeviceError(f"image {image.id} has no checksum that its bitstream could be compared with")
    try:
        client.save(image, path, max_bytes, check, received)
    except errors.AccelschedError as exc:
        raise DeviceError(f"the bitstream could not be downloaded: {exc}") from exc


def verify(region: Region, label: Label, image: Image | None, wanted: Wanted | None) -> str | None:
    """Check that a bitstream is made for a region, and has the function that is wanted.

    :param image: that it comes from; None for a file of the operator's
    :returns: the function that the region will have; None when neither image nor bitstream tells
    :raises DeviceError: saying what does not fit
    """
    properties = {} if image is None else image.properties
    interface_id = _agreed("interface id", label.interface_id, properties.get(INTERFACE_ID))
    function_id = _agreed("function id", label.function_id, properties.get(FUNCTION_ID))
    if interface_id is None:
        raise DeviceError(f"the bitstream does not say for which interface it is made; set {INTERFACE_ID} on its image")
    if interface_id != region.interface_id:
        raise DeviceError(f"the bitstream is made for interface {interface_id}, the region has {region.interface_id}")
    if wanted is not None and wanted.kind == "function_id" and function_id != wanted.value:
        raise DeviceError(f"the bitstream has function {function_id}, wanted is {wanted.value}")
    return function_id


def _agreed(what: str, of_bitstream: str | None, of_image: str | None) -> str | None:
    """Return what a bitstream and its image both say, or the one that says it."""
    told = uuid_of(of_image)
    if of_image is not None and told is None:
        raise DeviceError(f"the {what} of the bitstream's image is not a UUID: {of_image[:100]!r}")
    if told is not None and of_bitstream is not None and told != of_bitstream:
        raise DeviceError(f"the bitstream says {what} {of_bitstream}, its image {told}")
    return of_bitstream or told
