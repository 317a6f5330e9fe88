# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images from and to Glance: what an agent needs of its API v2.

https://docs.openstack.org/api-ref/image/v2/
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
import tenacity
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import loading as ks_loading
from oslo_config import cfg

from accelsched import errors, wire
from accelsched.conf import glance as options

_CONNECT_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 20


class ImageError(errors.AccelschedError):
    """An image is too large, or not what its checksum says; the text is fit for the server's owner."""


@dataclass(frozen=True)
class Image:
    """What identifies the contents of an image, and what is said of it."""

    id: str
    disk_format: str
    size: int  # bytes; 0 when Glance does not say
    hash_algorithm: str | None  # name as hashlib knows it
    hash_value: str | None  # hexadecimal
    owner: str | None = None  # project
    public: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)  # those that Glance gives no meaning to, and others

    @classmethod
    def of(cls, spec: wire.ImageSpec) -> Self:
        """Return what an assignment says of an image."""
        return cls(spec["id"], spec["disk_format"], spec["size"], spec["os_hash_algo"], spec["os_hash_value"])


class ImageClient:
    """Reads and fills images with the credentials of ``[glance]``."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._read_timeout_s: float = conf.glance.read_timeout
        self._attempts: int = conf.glance.download_attempts
        self._adapter: Any = None

    def show(self, image_id: str) -> Image:
        """Return what an image is.

        :raises accelsched.errors.NotFoundError: when there is none
        :raises accelsched.errors.UnavailableError: when Glance does not answer
        """
        return _image({"id": image_id, **self._get(f"/images/{image_id}", stream=False).json()})

    def find(self, name: str, value: str) -> list[Image]:
        """Return the images with a property, as far as one page of Glance's has them.

        :param name: of the property
        :raises accelsched.errors.UnavailableError: when Glance does not answer
        """
        body = self._request("GET", "/images", params={name: value, "status": "active"}).json()
        return [_image(image) for image in body["images"]]

    def save(
        self,
        image: Image,
        path: Path,
        max_bytes: int,
        check: Callable[[], None],
        received: Callable[[int], None] = lambda _bytes: None,
    ) -> None:
        """Write the contents of an image to a file, and check them; a download that breaks is begun again.

        :param check: called between chunks; what it raises ends the download
        :param received: called between chunks with the number of bytes that are there
        :raises ImageError: when it is too large, or not what its checksum says
        :raises accelsched.errors.NotFoundError: when there is no such image or it has no contents
        :raises accelsched.errors.UnavailableError: when Glance does not answer
        """
        for attempt in self.retrying():
            with attempt:
                self._save_once(image, path, max_bytes, check, received)

    def _save_once(
        self,
        image: Image,
        path: Path,
        max_bytes: int,
        check: Callable[[], None],
        received: Callable[[int], None],
    ) -> None:
        limit = min(image.size or max_bytes, max_bytes)
        if image.size > max_bytes:
            raise ImageError(f"image {image.id} has {image.size} bytes, more than the {max_bytes} it may have")
        digest, there = _digest(image), 0
        with path.open("wb") as file:
            for chunk in self.download(image.id):
                check()
                there += len(chunk)
                if there > limit:
                    raise ImageError(f"image {image.id} is larger than the {limit} bytes it may have")
                file.write(chunk)
                if digest is not None:
                    digest.update(chunk)
                received(there)
            file.flush()
            os.fsync(file.fileno())
        if there < image.size:
            raise errors.UnavailableError(f"Glance sent {there} of {image.size} bytes of image {image.id}")
        _compare(image, digest)

    def download(self, image_id: str) -> Iterator[bytes]:
        """Yield the contents of an image.

        :raises accelsched.errors.NotFoundError: when there is no such image or it has no contents
        :raises accelsched.errors.UnavailableError: when Glance does not answer or stops in the middle
        """
        response = self._get(f"/images/{image_id}/file", stream=True)
        if response.status_code == 204:
            raise errors.NotFoundError(f"image {image_id} has no contents")
        try:
            yield from response.iter_content(_CHUNK_BYTES)
        except (requests.RequestException, OSError) as exc:
            raise errors.UnavailableError(f"Glance stopped sending image {image_id}: {exc}") from exc
        finally:
            response.close()

    def upload(self, image_id: str, disk_format: str, path: Path, check: Callable[[], None]) -> None:
        """Fill an image that has no contents yet; one that has some was filled before.

        :param check: called between chunks; what it raises ends the upload
        :raises accelsched.errors.NotFoundError: when there is no such image any more
        :raises accelsched.errors.ForbiddenError: when Glance does not take it from us
        :raises accelsched.errors.UnavailableError: when Glance does not answer, or not yet after an upload that broke
        """
        for attempt in self.retrying():
            with attempt:
                self._upload_once(image_id, disk_format, path, check)

    def _upload_once(self, image_id: str, disk_format: str, path: Path, check: Callable[[], None]) -> None:
        described = self._request("GET", f"/images/{image_id}").json()
        if described["status"] == "active":
            return
        if described.get("disk_format") != disk_format:
            change = {"op": "replace", "path": "/disk_format", "value": disk_format}
            patch = "application/openstack-images-v2.1-json-patch"
            self._request("PATCH", f"/images/{image_id}", json=[change], headers={"Content-Type": patch})
        stream = {"Content-Type": "application/octet-stream"}
        self._request("PUT", f"/images/{image_id}/file", data=_chunks(path, check), headers=stream)

    def retrying(self) -> tenacity.Retrying:
        """Return how a whole download or upload is tried again after it broke."""
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=tenacity.wait_exponential(multiplier=0.5, max=10),
            retry=tenacity.retry_if_exception_type(errors.UnavailableError),
            reraise=True,
        )

    def _get(self, path: str, stream: bool) -> requests.Response:
        return self._request("GET", path, stream=stream)

    def _request(self, method: str, path: str, **request: Any) -> requests.Response:
        try:
            adapter = self._connect()
            endpoint = (adapter.endpoint_override or adapter.get_endpoint() or "").rstrip("/")
            if not endpoint:
                raise errors.UnavailableError(
                    "there is no image service in the catalog, nor [glance] endpoint_override"
                )
            version = "" if endpoint.endswith("/v2") else "/v2"
            response: requests.Response = adapter.request(
                f"{endpoint}{version}{path}",
                method,
                **request,
                timeout=(_CONNECT_TIMEOUT_S, self._read_timeout_s),
                connect_retries=2,
                log=False,  # contents, and tokens in redirects
            )
        except ks_exceptions.NotFound as exc:
            raise errors.NotFoundError(f"Glance has no {path.strip('/')}") from exc
        except ks_exceptions.Forbidden as exc:
            raise errors.ForbiddenError(
                f"Glance refuses {method} {path.strip('/')}; the user of [glance] needs the role admin: {exc}"
            ) from exc
        except (ks_exceptions.ClientException, requests.RequestException) as exc:
            raise errors.UnavailableError(f"Glance: {type(exc).__name__}: {exc}") from exc
        return response

    def _connect(self) -> Any:
        if self._adapter is None:
            group = options.GROUP
            auth = ks_loading.load_auth_from_conf_options(self._conf, group)
            session = ks_loading.load_session_from_conf_options(self._conf, group, auth=auth)
            adapter = ks_loading.load_adapter_from_conf_options(self._conf, group, session=session, auth=auth)
            adapter.service_type = adapter.service_type or "image"
            self._adapter = adapter
        return self._adapter


def _image(body: Mapping[str, Any]) -> Image:
    return Image(
        id=str(body["id"]),
        disk_format=str(body.get("disk_format") or "raw"),
        size=int(body.get("size") or 0),
        hash_algorithm=body.get("os_hash_algo"),
        hash_value=body.get("os_hash_value"),
        owner=body.get("owner"),
        public=body.get("visibility") == "public",
        properties={name: value for name, value in body.items() if isinstance(value, str)},
    )


def _digest(image: Image) -> Any:
    if not image.hash_algorithm or not image.hash_value:
        return None
    try:
        return hashlib.new(image.hash_algorithm)
    except ValueError as exc:
        raise ImageError(f"image {image.id} has a checksum of unknown kind {image.hash_algorithm!r}") from exc


def _chunks(path: Path, check: Callable[[], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check()
            yield chunk


def verify_checksum(image: Image, path: Path) -> None:
    """Check a file that should have the contents of an image.

    :raises ImageError: when it is not what the image's checksum says
    """
    digest = _digest(image)
    if digest is not None:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    _compare(image, digest)


def _compare(image: Image, digest: Any) -> None:
    if digest is not None and not hmac.compare_digest(digest.hexdigest(), (image.hash_value or "").lower()):
        raise ImageError(f"image {image.id} is not what its {image.hash_algorithm} checksum says")
