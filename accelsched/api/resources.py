# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What handlers of every service share: JSON by orjson, who asks, checked bodies and queries."""

from __future__ import annotations

import logging
import re
from typing import Any

import falcon
import jsonschema
import orjson
from falcon import media
from oslo_db import exception as db_exception

from accelsched import errors
from accelsched.api import faults
from accelsched.api.middleware import auth, repeat, request_id
from accelsched.context import RequestContext
from accelsched.db.engine import CommitLostError

LOG = logging.getLogger(__name__)

App = falcon.App[falcon.Request, falcon.Response]

_SHOWN = 100  # characters of a refused value that are repeated to whoever sent it
_STATUS = {
    errors.InvalidError: 400,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.UnavailableError: 503,
}
_END = re.compile(r"(?<!\\)\$\Z")
# An escaped NUL, its own backslash not escaped. PostgreSQL takes none in a text, and no name has one.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
# For errors of which Falcon says no more than the status.
_PLAIN = {404: "The resource could not be found.", 405: "The method is not allowed for this resource."}
_NO_DATABASE = "The database does not answer just now; try again."
_COMMIT_LOST = "The database went away just now, and whether this was done is not known; look before you ask again."
_UNEXPECTED = "Unexpected API Error. The operator finds it in the log by its request id."


def json_handler() -> media.JSONHandler:
    """Return Falcon's JSON handler on orjson."""
    return media.JSONHandler(dumps=orjson.dumps, loads=orjson.loads)


def new_app(*middleware: Any) -> App:
    """Return a Falcon application that speaks JSON by orjson and nothing else."""
    app: App = falcon.App(middleware=list(middleware))
    handlers = media.Handlers({falcon.MEDIA_JSON: json_handler()})
    app.req_options.media_handlers = handlers
    app.resp_options.media_handlers = handlers
    # A repeated parameter is a list; a comma is part of a value.
    app.req_options.auto_parse_qs_csv = False
    app.req_options.keep_blank_qs_values = True
    return app


def context_of(req: falcon.Request) -> RequestContext:
    """Return who asks.

    :raises falcon.HTTPUnauthorized: when nobody knows
    """
    context = req.env.get(auth.CONTEXT)
    if context is None:
        raise falcon.HTTPUnauthorized(description="The request you have made requires authentication.")
    found: RequestContext = context
    return found


def request_id_of(req: falcon.Request) -> str:
    """Return the id of the request."""
    found: str = req.env.get(request_id.REQUEST_ID, "")
    return found


def body_of(req: falcon.Request, validator: jsonschema.protocols.Validator) -> dict[str, Any]:
    """Return the request's body, parsed and found to be of the schema.

    :raises accelsched.errors.InvalidError: saying what is wrong and where
    :raises falcon.HTTPUnsupportedMediaType: when it does not claim to be JSON
    """
    content_type = (req.content_type or "").partition(";")[0].strip().lower()
    if content_type != falcon.MEDIA_JSON:
        raise falcon.HTTPUnsupportedMediaType(description=f"Unsupported Content-Type {content_type!r}; use JSON.")
    raw = req.bounded_stream.read()
    if _NUL.search(raw):
        raise errors.InvalidError("Malformed request body: a NUL character is in a text")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise errors.InvalidError(f"Malformed request body: not JSON: {exc}") from exc
    check(validator, body)
    checked: dict[str, Any] = body
    return checked


def check(validator: jsonschema.protocols.Validator, instance: Any) -> None:
    """Refuse what is not of the schema, naming the worst fault and its place.

    :raises accelsched.errors.InvalidError: in Nova's words
    """
    error = jsonschema.exceptions.best_match(validator.iter_errors(instance))
    if error is None:
        return
    message = error.message if len(error.message) <= 5 * _SHOWN else error.message[: 5 * _SHOWN] + "..."
    if not error.absolute_path:
        raise errors.InvalidError(f"Invalid input: {message}")
    place = ".".join(str(part) for part in error.absolute_path)
    value = repr(error.instance)
    value = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
    raise errors.InvalidError(f"Invalid input for field/attribute {place}. Value: {value}. {message}")


def validator(schema: dict[str, Any]) -> jsonschema.protocols.Validator:
    """Return a validator for a schema of draft 2020-12, formats checked; that the schema is one, tests find out."""
    strict = _to_the_end(schema)
    return jsonschema.Draft202012Validator(strict, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def _to_the_end(part: Any) -> Any:
    """Have a pattern's last ``$`` be the end, as in ECMA-262: Python's lets a newline by."""
    if isinstance(part, list):
        return [_to_the_end(one) for one in part]
    if not isinstance(part, dict):
        return part
    strict = {key: _to_the_end(value) for key, value in part.items()}
    if isinstance(pattern := strict.get("pattern"), str):
        strict["pattern"] = _END.sub(r"\\Z", pattern)
    if isinstance(named := strict.get("patternProperties"), dict):
        strict["patternProperties"] = {_END.sub(r"\\Z", pattern): value for pattern, value in named.items()}
    return strict


def answer_errors(app: App, form: faults.Form) -> None:
    """Make an application answer every error in one form: the domain's, Falcon's, and the unforeseen."""

    def write(req: falcon.Request, resp: falcon.Response, status: int, detail: str) -> None:
        resp.status = status
        resp.text = None
        resp.data = None
        resp.media = form(status, detail, request_id_of(req))

    def on_domain_error(req: falcon.Request, resp: falcon.Response, exc: Exception, _params: dict[str, Any]) -> None:
        write(req, resp, next((status for kind, status in _STATUS.items() if isinstance(exc, kind)), 500), str(exc))

    def on_database_lost(req: falcon.Request, resp: falcon.Response, exc: Exception, _params: dict[str, Any]) -> None:
        _log_crash(req, exc)
        req.env[repeat.DATABASE_LOST] = True
        write(req, resp, 503, _COMMIT_LOST if isinstance(exc, CommitLostError) else _NO_DATABASE)

    def on_crash(req: falcon.Request, resp: falcon.Response, exc: Exception, _params: dict[str, Any]) -> None:
        _log_crash(req, exc)
        write(req, resp, 500, _UNEXPECTED)

    def serialize(req: falcon.Request, resp: falcon.Response, exc: falcon.HTTPError) -> None:
        write(req, resp, exc.status_code, exc.description or _PLAIN.get(exc.status_code) or exc.title or "")

    app.set_error_serializer(serialize)
    app.add_error_handler(Exception, on_crash)
    app.add_error_handler(errors.AccelschedError, on_domain_error)
    app.add_error_handler(db_exception.DBConnectionError, on_database_lost)
    app.add_error_handler(db_exception.DBDeadlock, on_database_lost)


def _log_crash(req: falcon.Request, exc: Exception) -> None:
    LOG.error("%s %s failed, %s", req.method, req.path, request_id_of(req), exc_info=exc)
