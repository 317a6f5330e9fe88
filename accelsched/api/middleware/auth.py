# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who asks: the three strategies of ``[api] auth_strategy``.

Each puts an :class:`accelsched.context.RequestContext` under ``accelsched.context`` into the environment of a request
whose caller it knows and lets every other request through without one: which paths are public, and what a 401
looks like, is each service's business. The challenge of a 401 is added here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pathlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import webob.exc
from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_middleware import basic_auth, exceptions

from accelsched import errors
from accelsched.api.middleware import request_id
from accelsched.context import RequestContext

LOG = logging.getLogger(__name__)

CONTEXT = "accelsched.context"
_LONGEST_NAME = 255  # what the tables keep
_BASIC_CACHE_S = 60.0
_BASIC_CACHE_SIZE = 1024


def layer(app: WSGIApplication, conf: cfg.ConfigOpts) -> WSGIApplication:
    """Return an application behind the configured strategy.

    :raises accelsched.errors.ConfigurationError: when the strategy lacks something
    """
    strategy: Callable[[WSGIApplication, cfg.ConfigOpts], WSGIApplication] = {
        "keystone": _keystone,
        "http_basic": _http_basic,
        "noauth2": _noauth2,
    }[conf.api.auth_strategy]
    return strategy(app, conf)


def _give_context(environ: WSGIEnvironment, context: RequestContext) -> None:
    environ[CONTEXT] = context


def _identifiers(environ: WSGIEnvironment) -> dict[str, Any]:
    return {
        "request_id": environ.get(request_id.REQUEST_ID),
        "global_request_id": environ.get(request_id.GLOBAL_REQUEST_ID),
    }


def _challenging(app: WSGIApplication, challenge: str) -> WSGIApplication:
    def challenged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status, headers, exc_info=None):  # type: ignore[no-untyped-def]
            if status.startswith("401"):
                headers = [*headers, ("WWW-Authenticate", challenge)]
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return challenged


def _keystone(app: WSGIApplication, conf: cfg.ConfigOpts) -> WSGIApplication:
    def with_context(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_X_IDENTITY_STATUS") == "Confirmed":
            _give_context(environ, RequestContext.from_environ(environ, **_identifiers(environ)))
        return app(environ, start_response)

    checked: WSGIApplication = auth_token.AuthProtocol(
        with_context, {"oslo_config_config": conf, "delay_auth_decision": True}
    )
    if not conf.keystone_authtoken.auth_type:
        raise errors.ConfigurationError(
            "[keystone_authtoken] auth_type: is not set; auth_strategy = keystone needs it, and auth_url, username ..."
        )
    return checked


def _noauth2(app: WSGIApplication, _conf: cfg.ConfigOpts) -> WSGIApplication:
    """Believe the headers, as Placement's noauth2 does.

    ``X-Auth-Token: USER[:PROJECT]``; ``X-Roles`` and ``X-Project-Id`` say more; ``OpenStack-System-Scope: all`` is
    system scope. The bare token ``admin`` has the roles admin and service.
    """

    def with_context(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        token = environ.get("HTTP_X_AUTH_TOKEN", "")
        if token and len(token) + len(environ.get("HTTP_X_PROJECT_ID", "")) <= _LONGEST_NAME:
            user, _, project = token.partition(":")
            project = environ.get("HTTP_X_PROJECT_ID") or project or user
            if "HTTP_X_ROLES" in environ:
                roles = [role.strip() for role in environ["HTTP_X_ROLES"].split(",") if role.strip()]
            else:
                roles = ["admin", "service"] if user == "admin" else []
            system = environ.get("HTTP_OPENSTACK_SYSTEM_SCOPE") or None
            context = RequestContext(
                auth_token=token,
                user_id=user,
                project_id=None if system else project,
                system_scope=system,
                roles=roles,
                **_identifiers(environ),
            )
            _give_context(environ, context)
        return app(environ, start_response)

    return _challenging(with_context, "noauth2")


def _http_basic(app: WSGIApplication, conf: cfg.ConfigOpts) -> WSGIApplication:
    file = conf.api.http_basic_auth_user_file
    try:
        basic_auth.validate_auth_file(file)
    except (exceptions.ConfigInvalid, webob.exc.HTTPException) as exc:
        raise errors.ConfigurationError(f"[api] http_basic_auth_user_file: {file}: {exc}") from exc
    verified = _VerifiedPasswords(pathlib.Path(file))

    def with_context(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        user = verified.user_of(environ.pop("HTTP_AUTHORIZATION", ""))
        if user is not None:
            context = RequestContext(
                user_id=user,
                user_name=user,
                project_id=user,
                roles=["admin", "service", "member", "reader"],
                **_identifiers(environ),
            )
            _give_context(environ, context)
        return app(environ, start_response)

    return _challenging(with_context, 'Basic realm="accelsched"')


class _VerifiedPasswords:
    """Which Authorization headers were right a moment ago: bcrypt is slow on purpose, once a minute is enough."""

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        self._salt = secrets.token_bytes(32)
        self._until: dict[tuple[bytes, int], tuple[float, str]] = {}
        self._lock = threading.Lock()

    def user_of(self, header: str) -> str | None:
        """Return whose header this is, None when it is nobody's."""
        if not header:
            return None
        digest = hashlib.blake2b(header.encode("utf-8", "surrogateescape"), key=self._salt).digest()
        try:
            # A changed file is read anew at once.
            key = (digest, os.stat(self._file).st_mtime_ns)  # noqa: PTH116 - one call on a hot path
            known = self._until.get(key)
            if known and known[0] > time.monotonic():
                return known[1]
            name, password = basic_auth.parse_token(basic_auth.parse_header({"HTTP_AUTHORIZATION": header}))
            user = basic_auth.authenticate(str(self._file), name, password)["HTTP_X_USER"]
        except (webob.exc.HTTPException, OSError, ValueError):
            return None
        with self._lock:
            if len(self._until) >= _BASIC_CACHE_SIZE:
                self._until.clear()
            self._until[key] = (time.monotonic() + _BASIC_CACHE_S, user)
        return user
