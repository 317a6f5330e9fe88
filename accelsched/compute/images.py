# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images as the image service (Glance) describes them to the caller.

With Keystone, the caller's own token is used, so the caller sees the images that the image service lets it see. The
``[glance]`` credentials serve to find the endpoint only, and to authenticate where callers have no token.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import keystoneauth1.exceptions
from keystoneauth1 import adapter, loading, token_endpoint
from oslo_config import cfg

from accelsched import errors, wire

_GROUP = "glance"
# What the image schema itself defines; everything else is a property.
_OWN_KEYS = frozenset(
    {
        *("checksum", "container_format", "created_at", "direct_url", "disk_format", "file", "id", "locations"),
        *("min_disk", "min_ram", "name", "os_hash_algo", "os_hash_value", "os_hidden", "owner", "protected", "schema"),
        *("self", "size", "status", "stores", "tags", "updated_at", "virtual_size", "visibility"),
    }
)
_DISK_FORMATS = frozenset({"qcow2", "raw"})
_KERNEL_FORMATS = frozenset({"aki", "ari", "raw"})


class Images:
    """The image service of ``[glance]``; connects when first asked."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._service: adapter.Adapter | None = None
        self._endpoint: str | None = None

    @property
    def configured(self) -> bool:
        """Whether there is an image service at all."""
        options = self._conf[_GROUP]
        return bool(options.endpoint_override or options.auth_type)

    def get(self, image_id: str, token: str | None) -> wire.ImageSpec:
        """Return an image that a server can be made of.

        :param token: the caller's Keystone token; None uses the service's own credentials
        :raises accelsched.errors.InvalidError: when the caller sees no such image, or it or its kernel is not ready
        :raises accelsched.errors.UnavailableError: when the image service does not answer
        """
        image = self._active(image_id, token, "image")
        if image["disk_format"] not in _DISK_FORMATS:
            raise errors.InvalidError(
                f"Image {image_id} is unacceptable: disk_format {image['disk_format']}, not qcow2 or raw."
            )
        for role in ("kernel", "ramdisk"):
            part_id = image.get(f"{role}_id")
            if part_id:
                part = self._active(str(part_id), token, role)
                if part["disk_format"] not in _KERNEL_FORMATS:
                    raise errors.InvalidError(
                        f"Image {image_id} is unacceptable: its {role} {part_id} has disk_format "
                        f"{part['disk_format']}, not one of {', '.join(sorted(_KERNEL_FORMATS))}."
                    )
        return spec_of(image)

    def create(self, record: Mapping[str, Any], token: str | None) -> str:
        """Make an image without contents; return its id.

        :param record: as the image service takes it
        :param token: the caller's Keystone token; None uses the service's own credentials
        :raises accelsched.errors.InvalidError: when there is no image service, or it refuses
        :raises accelsched.errors.ForbiddenError: when the caller may not
        :raises accelsched.errors.UnavailableError: when the image service does not answer
        """
        self._need()
        try:
            return str(self._client(token).post("/v2/images", json=dict(record)).json()["id"])
        except (keystoneauth1.exceptions.Forbidden, keystoneauth1.exceptions.Unauthorized) as exc:
            raise errors.ForbiddenError(f"The image service refuses: {exc}") from exc
        except keystoneauth1.exceptions.HTTPClientError as exc:
            raise errors.InvalidError(f"The image service refuses: {exc}") from exc
        except keystoneauth1.exceptions.ClientException as exc:
            raise errors.UnavailableError("The image service does not make an image just now.") from exc

    def find(self, properties: Mapping[str, str], token: str | None) -> list[dict[str, Any]]:
        """Return the images that have these properties, the newest first.

        :raises accelsched.errors.InvalidError: when there is no image service
        :raises accelsched.errors.UnavailableError: when the image service does not answer
        """
        self._need()
        try:
            found = self._client(token).get("/v2/images", params={**properties, "sort": "created_at:desc"})
        except keystoneauth1.exceptions.ClientException as exc:
            raise errors.UnavailableError("The image service cannot list images just now.") from exc
        return list(found.json()["images"])

    def delete(self, image_id: str) -> None:
        """Delete an image with the service's own credentials, if it is there.

        :raises accelsched.errors.ForbiddenError: when the service may not
        :raises accelsched.errors.UnavailableError: when the image service does not answer
        """
        try:
            self._client(None).delete(f"/v2/images/{image_id}")
        except (keystoneauth1.exceptions.NotFound, keystoneauth1.exceptions.Gone):
            return
        except keystoneauth1.exceptions.Forbidden as exc:
            raise errors.ForbiddenError(
                f"image {image_id} may not be deleted; the user of [glance] needs the role admin"
            ) from exc
        except keystoneauth1.exceptions.ClientException as exc:
            raise errors.UnavailableError(f"image {image_id} could not be deleted: {exc}") from exc

    def _need(self) -> None:
        if not self.configured:
            raise errors.InvalidError("This deployment has no image service ([glance] is not set).")

    def url(self, image_id: str) -> str:
        """Return where an image is."""
        endpoint = self._conf[_GROUP].endpoint_override or self._client(None).get_endpoint() or ""
        return f"{str(endpoint).rstrip('/').removesuffix('/v2')}/v2/images/{image_id}"

    def _active(self, image_id: str, token: str | None, role: str) -> dict[str, Any]:
        if not self.configured:
            raise errors.InvalidError("imageRef: this deployment has no image service ([glance] is not set)")
        try:
            response = self._client(token).get(f"/v2/images/{image_id}", connect_retries=2)
        except (keystoneauth1.exceptions.NotFound, keystoneauth1.exceptions.Forbidden) as exc:
            raise errors.InvalidError(f"Can not find requested {role} {image_id}") from exc
        except keystoneauth1.exceptions.ClientException as exc:
            raise errors.UnavailableError(f"The image service cannot tell about {role} {image_id} just now.") from exc
        image: dict[str, Any] = response.json()
        if image.get("status") != "active":
            raise errors.InvalidError(f"Image {image_id} is not active.")
        return image

    def _client(self, token: str | None) -> adapter.Adapter:
        with self._lock:
            if self._service is None:
                session = loading.load_session_from_conf_options(self._conf, _GROUP)
                auth = loading.load_auth_from_conf_options(self._conf, _GROUP) if self._conf[_GROUP].auth_type else None
                self._service = loading.load_adapter_from_conf_options(
                    self._conf, _GROUP, session=session, auth=auth, **self._defaults()
                )
            if token is None:
                return self._service
            if self._endpoint is None:
                found = self._conf[_GROUP].endpoint_override or self._service.get_endpoint()
                if not found:
                    raise errors.UnavailableError("The image service is in no catalog; set [glance] endpoint_override.")
                self._endpoint = str(found).rstrip("/").removesuffix("/v2")
        return adapter.Adapter(
            self._service.session, auth=token_endpoint.Token(self._endpoint, token), endpoint_override=self._endpoint
        )

    def _defaults(self) -> dict[str, Any]:
        return {} if self._conf[_GROUP].service_type else {"service_type": "image"}


def spec_of(image: Mapping[str, Any]) -> wire.ImageSpec:
    """Return what a server keeps of an image, from the image service's description."""
    return {
        "id": image["id"],
        "name": image.get("name") or "",
        "disk_format": image["disk_format"],
        "size": image.get("size") or 0,
        "min_disk_gb": image.get("min_disk") or 0,
        "min_ram_mb": image.get("min_ram") or 0,
        "os_hash_algo": image.get("os_hash_algo"),
        "os_hash_value": image.get("os_hash_value"),
        "properties": {key: str(value) for key, value in image.items() if key not in _OWN_KEYS and value is not None},
    }


def check_fits(image: wire.ImageSpec, flavor: Mapping[str, Any]) -> None:
    """Refuse a flavor that is too small for an image.

    :param flavor: a wire.FlavorSpec
    :raises accelsched.errors.InvalidError: in Nova's words
    """
    if flavor["ram_mb"] < image["min_ram_mb"]:
        raise errors.InvalidError("Flavor's memory is too small for requested image.")
    if not flavor["disk_gb"]:
        return
    room = flavor["disk_gb"] << 30
    if image["size"] > room:
        raise errors.InvalidError(
            "Flavor's disk is too small for requested image. "
            f"Flavor disk is {room} bytes, image is {image['size']} bytes."
        )
    if flavor["disk_gb"] < image["min_disk_gb"]:
        raise errors.InvalidError(
            "Flavor's disk is smaller than the minimum size specified in image metadata. "
            f"Flavor disk is {room} bytes, minimum size is {image['min_disk_gb'] << 30} bytes."
        )
