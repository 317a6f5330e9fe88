# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A read whose connection to the database was lost is done once more, on a new one."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: Key of the environment under which services say that they answer without a database.
DATABASE_LOST = "accelsched.database_lost"


def layer(app: WSGIApplication) -> WSGIApplication:
    """Return an application that repeats reads; whatever else could be repeated was: see ``Database.transact``.

    :param app: answers at once, not while its body is read
    """

    def repeating(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return app(environ, start_response)
        answers: list[tuple[str, list[tuple[str, str]]]] = []

        def keep(status: str, headers: list[tuple[str, str]], _exc: _ExcInfo | None = None, /) -> Any:
            answers.append((status, headers))

        first = dict(environ)
        body = app(first, keep)
        if DATABASE_LOST in first:
            return app(environ, start_response)
        start_response(*answers[-1])
        return body

    return repeating


_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
