# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors in the form of the API that they belong to.

The layers outside the services (size bounds, unknown paths, crashes) answer in the form of the service whose path
was asked for, as the service itself does.
"""

from __future__ import annotations

import http
from collections.abc import Callable
from typing import Any

import orjson

#: (status, detail, request id) -> body
Form = Callable[[int, str, str], dict[str, Any]]

# Nova's names for statuses; any other is a computeFault.
_COMPUTE_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def title(status: int) -> str:
    """Return the standard phrase of a status code."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def compute(status: int, detail: str, _request_id: str) -> dict[str, Any]:
    """Render as Nova does: ``{"itemNotFound": {"code": 404, "message": ...}}``."""
    return {_COMPUTE_NAMES.get(status, "computeFault"): {"code": status, "message": detail}}


def errors_list(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """Render by the OpenStack API SIG's errors guideline, as Placement does."""
    return {"errors": [{"status": status, "title": title(status), "detail": detail, "request_id": request_id}]}


def coded_errors_list(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """Render as ``/v1`` does: the errors guideline with its optional code."""
    rendered = errors_list(status, detail, request_id)
    rendered["errors"][0]["code"] = f"accelsched.{title(status).lower().replace(' ', '_')}"
    return rendered


def accelerator(status: int, detail: str, _request_id: str) -> dict[str, Any]:
    """Render as Cyborg does: JSON within JSON."""
    fault = {"faultcode": "Client" if status < 500 else "Server", "faultstring": detail, "debuginfo": None}
    return {"error_message": orjson.dumps(fault).decode()}
