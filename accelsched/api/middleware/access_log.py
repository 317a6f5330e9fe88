# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""One line a request, as OpenStack's services write it; who asked is in the line's context."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

_LONGEST = 500  # characters of a path or query that are written


def layer(app: WSGIApplication) -> WSGIApplication:
    """Return an application that logs who asked what, and how it was answered."""

    def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        # Now, for mounting changes it.
        path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))[:_LONGEST]
        query = environ.get("QUERY_STRING", "")[:_LONGEST]

        def start(status, headers, exc_info=None):  # type: ignore[no-untyped-def]
            LOG.info(
                '%s "%s %s%s" status: %s time: %.4f',
                environ.get("REMOTE_ADDR", "-"),
                quote(environ.get("REQUEST_METHOD", "-"))[:16],
                path,
                f"?{query}" if query else "",
                status[:3],
                time.perf_counter() - began,
            )
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return logged
