# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors as Placement renders them: ``{"errors": [{status, title, detail, request_id, code}]}``."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

from accelsched import errors
from accelsched.api.placement import microversion
from accelsched.placement.inventories import InventoryInUseError
from accelsched.placement.providers import DuplicateProviderError, HasChildrenError, ProviderInUseError

UNDEFINED = "placement.undefined_code"
CONCURRENT_UPDATE = "placement.concurrent_update"
INVENTORY_IN_USE = "placement.inventory.inuse"
DUPLICATE_NAME = "placement.duplicate_name"
PROVIDER_IN_USE = "placement.resource_provider.inuse"
PROVIDER_CANNOT_DELETE_PARENT = "placement.resource_provider.cannot_delete_parent"
PROVIDER_NOT_FOUND = "placement.resource_provider.not_found"
QUERY_DUPLICATE_KEY = "placement.query.duplicate_key"
QUERY_BAD_VALUE = "placement.query.bad_value"
QUERY_MISSING_VALUE = "placement.query.missing_value"

_GENERIC = {
    400: "The server could not comply with the request since it is either malformed or otherwise incorrect.",
    401: "This server could not verify that you are authorized to access the document you requested.",
    403: "Access was denied to this resource.",
    404: "The resource could not be found.",
    405: "The method {method} is not allowed for this resource.",
    406: "The resource could not be generated that was acceptable to your browser (content of type application/json.",
    409: "There was a conflict when trying to complete your request.",
    413: "The body of your request was too large for this server.",
    415: "The request media type {media_type} is not supported by this server.",
    500: "The server has either erred or is incapable of performing the requested operation.",
    503: "The server is currently unavailable. Please try again at a later time.",
}


class Fault(Exception):  # noqa: N818 - an answer rather than an error
    """An answer that is not a success."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str = UNDEFINED,
        headers: Mapping[str, str] | None = None,
        vary: bool = True,
    ) -> None:
        """Describe the answer.

        :param vary: whether the answer carries a ``vary`` header; Placement leaves it out of those given before a
            handler is reached
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.vary = vary


# The first class that an error is of decides.
_RENDERED: tuple[tuple[type[errors.AccelschedError], int, str], ...] = (
    (HasChildrenError, 409, PROVIDER_CANNOT_DELETE_PARENT),
    (ProviderInUseError, 409, PROVIDER_IN_USE),
    (InventoryInUseError, 409, INVENTORY_IN_USE),
    (DuplicateProviderError, 409, DUPLICATE_NAME),
    (errors.ConcurrentUpdateError, 409, CONCURRENT_UPDATE),
    (errors.ConflictError, 409, UNDEFINED),
    (errors.InvalidError, 400, UNDEFINED),
    (errors.NotFoundError, 404, UNDEFINED),
    (errors.ForbiddenError, 403, UNDEFINED),
    (errors.UnavailableError, 503, UNDEFINED),
)


def of_error(error: errors.AccelschedError) -> Fault:
    """Return the answer to an error of the domain."""
    for kind, status, code in _RENDERED:
        if isinstance(error, kind):
            return Fault(status, str(error), code=code, vary=status != 403)
    return Fault(500)


def body(fault: Fault, request_id: str, minor: int | None, *, method: str, media_type: str | None) -> dict[str, Any]:
    """Return the body of an answer.

    :param minor: the request's version, None when it could not be told
    :param method: the request's method
    :param media_type: of the request's body, None when it has none
    """
    generic = _GENERIC.get(fault.status, "").format(method=method, media_type=media_type)
    error: dict[str, Any] = {
        "status": fault.status,
        "title": http.HTTPStatus(fault.status).phrase,
        "detail": f"{generic}\n\n{fault.message}" if fault.message else generic,
        "request_id": request_id,
    }
    if minor is not None and minor >= microversion.ERROR_CODES:
        error["code"] = fault.code
    if minor is None and fault.status == 406:
        error["max_version"] = microversion.MAX_VERSION
        error["min_version"] = microversion.MIN_VERSION
    return {"errors": [error]}
