# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Every request gets an id of its own; a well-formed one that comes in ties it to the caller's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from oslo_context import context

REQUEST_ID = "openstack.request_id"
GLOBAL_REQUEST_ID = "openstack.global_request_id"
_FORMAT = re.compile(r"req-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}")


def layer(app: WSGIApplication) -> WSGIApplication:
    """Return an application that numbers requests and says the number in its answers."""

    def numbered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request_id = context.generate_request_id()
        environ[REQUEST_ID] = request_id
        inbound = environ.get("HTTP_X_OPENSTACK_REQUEST_ID", "")
        if _FORMAT.fullmatch(inbound):
            environ[GLOBAL_REQUEST_ID] = inbound
        # Log lines carry the thread's newest context: not the one of whoever asked before.
        context.RequestContext(request_id=request_id, global_request_id=environ.get(GLOBAL_REQUEST_ID))
        names = ["x-openstack-request-id"]
        if environ.get("PATH_INFO", "").startswith("/compute/"):
            names.append("x-compute-request-id")

        def start(status, headers, exc_info=None):  # type: ignore[no-untyped-def]
            return start_response(status, [*headers, *((name, request_id) for name in names)], exc_info)

        return app(environ, start)

    return numbered
