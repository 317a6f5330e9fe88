# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""No request body above the bound is read, whether it says its length or comes in chunks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: (environ, start_response, status, detail) -> body
Refusal = Callable[[WSGIEnvironment, StartResponse, int, str], Iterable[bytes]]


def layer(app: WSGIApplication, limit: int, refuse: Refusal) -> WSGIApplication:
    """Return an application that answers 413 to a body of more than ``limit`` bytes.

    :param refuse: renders the answer in the form of the service asked
    """

    def bounded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or ""
        if length:
            if not (length.isascii() and length.isdecimal()):
                return refuse(environ, start_response, 400, "Content-Length is not a number.")
            if int(length) > limit:
                return refuse(environ, start_response, 413, f"The request body is larger than {limit} bytes.")
        elif environ.get("wsgi.input_terminated") and "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            # Behind this layer a body has a length, so that nobody else has to know of chunks.
            body = environ["wsgi.input"].read(limit + 1)
            if len(body) > limit:
                return refuse(environ, start_response, 413, f"The request body is larger than {limit} bytes.")
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return app(environ, start_response)

    return bounded
