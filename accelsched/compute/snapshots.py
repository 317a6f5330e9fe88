# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of servers' disks.

The API makes an image in Glance, as its user, and orders the server's agent to fill it. An image that was made and is
of no use any more is written down in the transaction that makes it so, and deleted when Glance is there to delete it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from oslo_log import log
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import images
from accelsched.compute.periodic import Periodic
from accelsched.db import instance_actions
from accelsched.db.compute import Server, UnwantedImage
from accelsched.db.engine import Database

LOG = log.getLogger(__name__)

# Properties that say something of the image itself, not of what boots from it.
_NOT_INHERITED = frozenset({"cache_in_nova", "bittorrent", "base_image_ref", "image_type", "instance_uuid"})
_NOT_INHERITED_PREFIXES = ("img_signature", "os_glance", "owner_specified.", "backup_")
_BATCH = 100


def has_disk(server: Server) -> bool:
    """Return whether there is anything of a server that an image could be made of."""
    return server.image is not None or bool(server.flavor["disk_gb"])


def record(server: Server, name: str, image_type: str, properties: Mapping[str, str]) -> dict[str, Any]:
    """Return what Glance is told of an image that a server's disk will be uploaded to.

    :param image_type: snapshot or backup
    :param properties: as the user wants them
    """
    before = server.image or {"id": "", "min_ram_mb": 0, "properties": {}}
    inherited = {
        key: value
        for key, value in before["properties"].items()
        if key not in _NOT_INHERITED and not key.startswith(_NOT_INHERITED_PREFIXES)
    }
    return {
        **inherited,
        **properties,
        "name": name,
        "container_format": "bare",
        "visibility": "private",
        "min_disk": server.flavor["disk_gb"],
        "min_ram": before["min_ram_mb"],
        "image_type": image_type,
        "base_image_ref": before["id"],
        "instance_uuid": server.uuid,
    }


def task(before: str, step: str) -> str:
    """Return the task state of a server whose image has come so far, in Nova's words.

    :param before: the task state until now
    :param step: as the agent says it
    """
    return f"shelving_{step}" if before.startswith("shelving") else step


def ended(session: Session, order: Mapping[str, Any], *, failed: bool) -> None:
    """Note what is of no use after an order: the image that could not be filled, or the backups that it replaces."""
    if "snapshot" in order:
        unwanted(session, [order["snapshot"]] if failed else order.get("outdated", ()))


def abandon(session: Session, server: Server, why: str) -> None:
    """Give up the image that a server is ordered to be made of, if it is.

    :param why: for the instance action's event
    """
    order = server.power_order
    if order is not None and server.task is not None and "snapshot" in order and server.shelved_image is None:
        ended(session, order, failed=True)
        fault = {"message": why, "details": ""}
        instance_actions.finish(session, [server.id], up_to_order=order["number"], fault=fault)


def unwanted(session: Session, image_ids: Iterable[str]) -> None:
    """Have images deleted."""
    for image_id in image_ids:
        if session.get(UnwantedImage, image_id) is None:
            session.add(UnwantedImage(image_id=image_id))


class Discarder(Periodic):
    """A thread that deletes images which are unwanted; one that Glance does not delete now is tried again."""

    def __init__(self, db: Database, image_service: images.Images, interval_s: float) -> None:
        super().__init__("discarder", interval_s)
        self._db = db
        self._images = image_service
        self._complaint = ""

    def failed(self, exc: Exception) -> None:
        """Say so, once as long as it is the same."""
        if str(exc) != self._complaint:
            self._complaint = str(exc)
            LOG.warning("Images that are of no use any more stay for now: %s", exc)

    def look(self) -> None:
        """Delete those that are unwanted now."""
        with self._db.reading() as session:
            found = session.scalars(select(UnwantedImage.image_id).order_by(UnwantedImage.since).limit(_BATCH)).all()
        failure: errors.AccelschedError | None = None
        for image_id in found:
            if self._stopping.is_set():
                return
            try:
                self._images.delete(image_id)
            except errors.AccelschedError as exc:
                failure = exc
            else:
                gone = delete(UnwantedImage).where(UnwantedImage.image_id == image_id)
                self._db.transact(lambda session, gone=gone: session.execute(gone))  # type: ignore[misc]
        if failure is not None:
            raise failure
        self._complaint = ""
