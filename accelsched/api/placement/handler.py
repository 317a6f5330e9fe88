# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the handlers of every resource share: checks before, headers after."""

from __future__ import annotations

import datetime
import uuid as uuidlib
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import falcon
import jsonschema
import orjson
from oslo_utils import uuidutils

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.api.placement import microversion
from accelsched.api.placement.faults import Fault
from accelsched.api.services import Services
from accelsched.db.base import utcnow
from accelsched.placement import providers

P = ParamSpec("P")
R = TypeVar("R", bound="Resource")
Responder = Callable[Concatenate[R, falcon.Request, falcon.Response, P], None]

# Python's "$" lets a newline at the end pass; "\Z" does not.
CLASS_PATTERN = r"^[A-Z0-9_]+\Z"
CUSTOM_PATTERN = r"^CUSTOM_[A-Z0-9_]+\Z"
UUID_KEY_PATTERN = r"^[0-9a-fA-F-]{36}\Z"
# PostgreSQL stores no NUL.
TEXT_PATTERN = r"^[^\x00]*\Z"
# More traits, aggregates or classes than a provider could sensibly have.
MANY = 5000

_body_formats = jsonschema.FormatChecker(formats=())


@_body_formats.checks("uuid")
def _is_uuid_like(instance: object) -> bool:
    """Tell whether it is a uuid, with or without dashes, in either case: bodies are taken so."""
    return not isinstance(instance, str) or (len(instance) <= 36 and bool(uuidutils.is_uuid_like(instance)))


def body_validator(schema: dict[str, Any]) -> jsonschema.protocols.Validator:
    """Return a validator for request bodies."""
    return jsonschema.Draft202012Validator(schema, format_checker=_body_formats)


def query_validator(schema: dict[str, Any]) -> jsonschema.protocols.Validator:
    """Return a validator for query strings, whose uuids have dashes."""
    return resources.validator(schema)


class Resource:
    """Base of every resource."""

    def __init__(self, services: Services) -> None:
        """Keep what the handlers stand on."""
        self.services = services

    def check_provider(self, uuid: str) -> None:
        """Refuse a path to a provider that is not there.

        :raises accelsched.placement.providers.ProviderNotFoundError: when it is not
        """
        with self.services.db.reading() as session:
            providers.get(session, uuid)

    def on_options(self, _req: falcon.Request, _resp: falcon.Response, **_params: str) -> None:
        """Refuse OPTIONS, as Placement does when CORS is not set up; Falcon would answer it."""
        allowed = [name.removeprefix("on_").upper() for name in dir(self) if name.startswith("on_")]
        raise falcon.HTTPMethodNotAllowed(allowed)


def minor_of(req: falcon.Request) -> int:
    """Return the request's minor version."""
    minor: int = req.context.minor
    return minor


def serves(
    rule: str,
    *,
    since: int = microversion.MIN_MINOR,
    until: int = microversion.MAX_MINOR,
    otherwise: int = 404,
    takes_json: bool = False,
    gives_json: bool = False,
    project_of: Callable[[falcon.Request], str | None] | None = None,
) -> Callable[[Responder[R, P]], Responder[R, P]]:
    """Check what comes before a handler, in Placement's order: version, media type, policy.

    :param rule: the policy rule
    :param since: first minor version that has this
    :param until: last minor version that has this
    :param otherwise: status at other versions
    :param takes_json: whether the body must claim to be JSON
    :param gives_json: whether the caller must accept JSON
    :param project_of: the project that the rule compares with; the caller's own when None
    """

    def decorate(responder: Responder[R, P]) -> Responder[R, P]:
        def checked(self: R, req: falcon.Request, resp: falcon.Response, /, *args: P.args, **kwargs: P.kwargs) -> None:
            if not since <= minor_of(req) <= until:
                raise Fault(otherwise)
            if takes_json:
                _require_json(req)
            if gives_json and not _accepts_json(req):
                raise Fault(406, "Only application/json is provided")
            target = None if project_of is None else {"project_id": project_of(req)}
            policies.require(self.services.enforcer, resources.context_of(req), rule, target)
            responder(self, req, resp, *args, **kwargs)

        # Falcon and readers of traces know a responder by its name.
        checked.__name__, checked.__doc__ = responder.__name__, responder.__doc__
        return checked

    return decorate


def _accepts_json(req: falcon.Request) -> bool:
    try:
        return falcon.mediatypes.quality(falcon.MEDIA_JSON, req.accept) > 0
    except ValueError:
        # As if there were none: that is what Placement makes of a header that is none.
        return True


def media_type_of(req: falcon.Request) -> str | None:
    """Return the media type that a request's body claims to be of, without its parameters."""
    return (req.content_type or "").partition(";")[0].strip() or None


def _require_json(req: falcon.Request) -> None:
    media_type = media_type_of(req)
    if media_type is None or media_type.lower() != falcon.MEDIA_JSON:
        raise Fault(415, f"The media type {media_type} is not supported, use {falcon.MEDIA_JSON}")


def body_of(
    req: falcon.Request, validator: jsonschema.protocols.Validator, *, first: Callable[[], object] | None = None
) -> Any:
    """Return the request's body, parsed and found to be of the schema.

    :param first: what is wrong with the path matters more than what is wrong with the body: called before a body is
        refused, so that it can raise
    :raises accelsched.errors.InvalidError: saying what is wrong and where
    """
    try:
        try:
            body = orjson.loads(req.bounded_stream.read())
        except orjson.JSONDecodeError as exc:
            raise errors.InvalidError(f"Malformed JSON: {exc}") from exc
        resources.check(validator, body)
    except errors.InvalidError:
        if first is not None:
            first()
        raise
    return body


def send(
    req: falcon.Request,
    resp: falcon.Response,
    document: object = None,
    *,
    status: int = 200,
    modified: datetime.datetime | None = None,
    location: str | None = None,
    cached: bool = True,
) -> None:
    """Answer.

    :param document: the body; none at all when None
    :param modified: when what it shows last changed, naive UTC; None for now
    :param location: path below the mount point of what was made
    :param cached: whether the answer carries last-modified and cache-control at versions that have them
    """
    resp.status = status
    if document is not None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = orjson.dumps(document)
    if cached and minor_of(req) >= microversion.LAST_MODIFIED:
        resp.last_modified = (modified or utcnow()).replace(tzinfo=datetime.UTC)
        resp.cache_control = ["no-cache"]
    if location is not None:
        resp.location = req.prefix + location


def href(req: falcon.Request, *parts: str) -> str:
    """Return the path of something, mount prefix included."""
    return "/".join((req.root_path, *parts))


def canonical_uuid(text: str) -> str:
    """Return a uuid with dashes and in lower case.

    :raises accelsched.errors.InvalidError: when it is none
    """
    if not uuidutils.is_uuid_like(text):
        raise errors.InvalidError(f"Malformed uuid: {text[:100]}")
    return str(uuidlib.UUID(text))
