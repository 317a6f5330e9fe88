# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Placement API as a Falcon application, to be mounted at ``/placement``."""

from __future__ import annotations

import logging
from typing import Any

import falcon
import orjson
from oslo_context import context as oslo_context
from oslo_db import exception as db_exception

from accelsched import errors
from accelsched.api import resources
from accelsched.api.middleware import auth, repeat, request_id
from accelsched.api.placement import (
    aggregates,
    allocations,
    candidates,
    classes,
    faults,
    handler,
    inventories,
    microversion,
    providers,
    reshaper,
    root,
    traits,
    usages,
)
from accelsched.api.placement.faults import Fault
from accelsched.api.services import Services

LOG = logging.getLogger(__name__)

_PROVIDER = "/resource_providers/{uuid}"


def create(services: Services) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the application."""
    app = resources.new_app(_Negotiation())
    app.add_error_handler(Exception, _on_crash)
    app.add_error_handler((db_exception.DBConnectionError, db_exception.DBDeadlock), _on_database_lost)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(errors.AccelschedError, _on_domain_error)
    app.add_error_handler(Fault, _on_fault)
    for template, resource in (
        ("/", root.Root),
        ("/resource_providers", providers.Providers),
        (_PROVIDER, providers.OneProvider),
        (_PROVIDER + "/inventories", inventories.Inventories),
        (_PROVIDER + "/inventories/{resource_class}", inventories.OneInventory),
        (_PROVIDER + "/traits", traits.ProviderTraits),
        (_PROVIDER + "/aggregates", aggregates.Aggregates),
        (_PROVIDER + "/usages", usages.ProviderUsages),
        (_PROVIDER + "/allocations", allocations.ProviderAllocations),
        ("/traits", traits.Traits),
        ("/traits/{name}", traits.OneTrait),
        ("/resource_classes", classes.Classes),
        ("/resource_classes/{name}", classes.OneClass),
        ("/allocations", allocations.Allocations),
        ("/allocations/{consumer_uuid}", allocations.ConsumerAllocations),
        ("/usages", usages.Usages),
        ("/allocation_candidates", candidates.AllocationCandidates),
        ("/reshaper", reshaper.Reshaper),
    ):
        app.add_route(template, resource(services))
    return app


class _Negotiation:
    """What comes before routing: who asks, at which version, and whether the body says what it is."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Refuse what no handler should see.

        :raises Fault: 401, 406, 400, 404
        """
        if req.path != "/" and req.env.get(auth.CONTEXT) is None:
            raise Fault(401, "The request you have made requires authentication.")
        try:
            req.context.minor = microversion.parse(req.get_header(microversion.HEADER))
        except microversion.UnknownVersionError as exc:
            raise Fault(406, f"Invalid microversion: {exc}") from exc
        except microversion.MalformedVersionError as exc:
            raise Fault(400, f"Invalid microversion: {exc}") from exc
        if req.content_length and not req.content_type:
            raise Fault(400, "content-type header required when content-length > 0", vary=False)
        # Falcon would take "/traits/" for a trait without a name, and "//traits" for "/traits".
        if req.path != "/" and "" in req.path.split("/")[1:]:
            raise Fault(404, vary=False)

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool) -> None:
        """Say which version answered."""
        minor = _minor_or_none(req)
        if minor is not None:
            resp.set_header(microversion.HEADER, f"{microversion.SERVICE} 1.{minor}")
            if getattr(resp.context, "vary", True):
                resp.append_header("vary", microversion.HEADER)


def _minor_or_none(req: falcon.Request) -> int | None:
    minor: int | None = getattr(req.context, "minor", None)
    return minor


def _on_fault(req: falcon.Request, resp: falcon.Response, fault: Fault, _params: dict[str, Any]) -> None:
    id_ = resources.request_id_of(req)
    if not id_:
        # Nobody in front has numbered the request.
        id_ = req.env[request_id.REQUEST_ID] = oslo_context.generate_request_id()
    resp.status = fault.status
    resp.content_type = falcon.MEDIA_JSON
    document = faults.body(fault, id_, _minor_or_none(req), method=req.method, media_type=handler.media_type_of(req))
    resp.data = orjson.dumps(document)
    for name, value in fault.headers.items():
        resp.set_header(name, value)
    resp.context.vary = fault.vary


def _on_domain_error(
    req: falcon.Request, resp: falcon.Response, error: errors.AccelschedError, params: dict[str, Any]
) -> None:
    _on_fault(req, resp, faults.of_error(error), params)


def _on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
    """Render what Falcon itself refuses: unknown routes and methods above all."""
    status = error.status_code
    if status == 405:
        allowed = dict(error.headers or {}).get("Allow", "")
        methods = ", ".join(method for method in allowed.split(", ") if method != "OPTIONS")
        fault = Fault(405, "The method specified is not allowed for this resource.", headers={"allow": methods})
    else:
        fault = Fault(status, error.description or "", vary=status != 404)
    _on_fault(req, resp, fault, params)


def _on_database_lost(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    LOG.error("the database did not answer %s %s", req.method, req.path, exc_info=error)
    req.env[repeat.DATABASE_LOST] = True
    _on_fault(req, resp, Fault(503, "The database does not answer just now."), params)


def _on_crash(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    LOG.error("unexpected error answering %s %s", req.method, req.path, exc_info=error)
    _on_fault(req, resp, Fault(500, "The operator finds the reason in the log by the request id."), params)
