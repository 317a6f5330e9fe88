# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""One HTTP port, several services: mounts them by path and wraps them in what they share.

From outside in: request id, access log, metrics, body bound; then either a public page (``/``, ``/healthcheck``,
``/metrics``) or identity and the service whose prefix the path has, asked twice where it loses the database.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import orjson
from oslo_middleware import healthcheck, http_proxy_to_wsgi

from accelsched.api import deciding, faults
from accelsched.api.accelerator import app as accelerator
from accelsched.api.compute import app as compute
from accelsched.api.middleware import access_log, auth, metrics, repeat, request_id, size_limit
from accelsched.api.operator import app as operator
from accelsched.api.placement import app as placement
from accelsched.compute import devices
from accelsched.placement import device_status

if TYPE_CHECKING:
    from accelsched.api.services import Services

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Mount:
    prefix: str
    service: str
    form: faults.Form
    app: WSGIApplication


def create(services: Services) -> WSGIApplication:
    """Return the whole API as one WSGI application.

    :raises accelsched.errors.ConfigurationError: when an option of the API is wrong
    """
    conf = services.conf
    decides = deciding.Deciding(services)
    mounts = [
        # Longer prefixes first.
        _Mount("/compute/v2.1", "compute", faults.compute, compute.create(services)),
        _Mount("/compute", "compute", faults.compute, compute.create_versions()),
        _Mount("/placement", "placement", faults.errors_list, placement.create(services)),
        _Mount("/accelerator", "accelerator", faults.accelerator, accelerator.create(services, decides)),
        _Mount("/v1", "operator", faults.coded_errors_list, operator.create(services, decides)),
    ]

    def count_devices() -> tuple[Mapping[str, int], int]:
        with services.db.reading() as session:
            return device_status.counts(session), devices.count_faults(session)

    public: dict[str, WSGIApplication] = {
        "": _index,
        "/": _index,
        "/healthcheck": healthcheck.Healthcheck(None, conf),
        "/metrics": metrics.page(count_devices),
    }

    def mount_of(path: str) -> _Mount | None:
        return next((m for m in mounts if path == m.prefix or path.startswith(m.prefix + "/")), None)

    def service_of(path: str) -> str:
        mount = mount_of(path)
        return mount.service if mount else path.strip("/") if path in public else "unknown"

    def refuse(environ: WSGIEnvironment, start_response: StartResponse, status: int, detail: str) -> Iterable[bytes]:
        mount = mount_of(environ.get("PATH_INFO", ""))
        form = mount.form if mount else faults.coded_errors_list
        body = orjson.dumps(form(status, detail, environ.get(request_id.REQUEST_ID, "")))
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status} {faults.title(status)}", headers)
        return [body]

    def mounted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        mount = mount_of(path)
        if mount is None:
            return refuse(environ, start_response, 404, "The resource could not be found.")
        if "\0" in path or "%00" in environ.get("QUERY_STRING", ""):
            # No name has one, and PostgreSQL takes none in a text.
            return refuse(environ, start_response, 400, "A NUL character is in the path or the query.")
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + mount.prefix
        environ["PATH_INFO"] = path[len(mount.prefix) :]
        return mount.app(environ, start_response)

    identified = size_limit.layer(auth.layer(repeat.layer(mounted), conf), conf.api.max_request_body_bytes, refuse)

    def dispatched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = public.get(environ.get("PATH_INFO", ""))
        try:
            return (page or identified)(environ, start_response)
        except Exception:
            # Services answer their own crashes; this one was in a layer outside them.
            LOG.exception("request failed: %s %s", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"))
            return refuse(environ, start_response, 500, "An unexpected error prevented the server from answering.")

    app: WSGIApplication = metrics.layer(dispatched, service_of)
    proxied = http_proxy_to_wsgi.HTTPProxyToWSGI(app, conf)
    if conf.oslo_middleware.enable_proxy_headers_parsing:
        app = proxied
    return request_id.layer(access_log.layer(app))


def _index(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """List the services below this port."""
    base = f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST') or environ['SERVER_NAME']}"
    base += environ.get("SCRIPT_NAME", "")
    listed = [
        {"type": type_, "links": [{"rel": "self", "href": base + path}]}
        for type_, path in (
            ("placement", "/placement"),
            ("compute", "/compute/v2.1"),
            ("accelerator", "/accelerator/v2"),
            ("accelsched", "/v1"),
        )
    ]
    body = orjson.dumps({"name": "accelsched", "services": listed})
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
