# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The WSGI layers, called as a server would call them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from accelsched import conf as options
from accelsched import errors
from accelsched.api.middleware import auth, request_id, size_limit

REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Call:
    """One request to a WSGI application."""

    def __init__(self, app: Any, path: str = "/", body: bytes | None = None, **environ: Any) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO(body or b""), **environ}
        self.body = b"".join(app(self.environ, self._start))

    def _start(self, status: str, headers: list[tuple[str, str]], _exc: Any = None) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the body that came in; 401 to nobody."""
    known = auth.CONTEXT in environ
    start_response("200 OK" if known or environ.get("PUBLIC") else "401 Unauthorized", [])
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return [environ["wsgi.input"].read(length)]


@pytest.fixture
def conf(tmp_path: Path) -> Any:
    conf = options.new()
    conf([], default_config_files=[])
    conf.set_override("auth_strategy", "noauth2", group="api")
    return conf


def test_every_answer_says_its_requests_id_and_compute_says_it_twice():
    app = request_id.layer(echo)
    call = Call(app, PUBLIC=1)
    assert REQUEST_ID.fullmatch(call.headers["x-openstack-request-id"])
    assert "x-compute-request-id" not in call.headers
    call = Call(app, "/compute/v2.1/servers", PUBLIC=1)
    assert call.headers["x-compute-request-id"] == call.headers["x-openstack-request-id"]


@pytest.mark.parametrize(
    ("inbound", "taken"),
    [
        ("req-01234567-89ab-cdef-0123-456789abcdef", True),
        ("req-01234567-89ab-cdef-0123-456789abcdef\n", False),
        ("req-01234567-89AB-cdef-0123-456789abcdef", False),
        ("'; drop table servers", False),
    ],
)
def test_only_a_well_formed_inbound_id_is_taken_as_the_global_one(inbound, taken):
    call = Call(request_id.layer(echo), PUBLIC=1, HTTP_X_OPENSTACK_REQUEST_ID=inbound)
    assert (call.environ.get(request_id.GLOBAL_REQUEST_ID) == inbound) is taken
    assert call.headers["x-openstack-request-id"] != inbound


def refuse(_environ: Any, start_response: Any, status: int, detail: str) -> list[bytes]:
    start_response(f"{status} -", [])
    return [detail.encode()]


@pytest.mark.parametrize(
    ("environ", "body", "status"),
    [
        ({"CONTENT_LENGTH": "10"}, b"x" * 10, "200"),
        ({"CONTENT_LENGTH": "11"}, b"x" * 11, "413"),
        ({"CONTENT_LENGTH": "-1"}, b"", "400"),
        ({"CONTENT_LENGTH": "ten"}, b"", "400"),
        ({"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}, b"x" * 10, "200"),
        ({"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}, b"x" * 11, "413"),
    ],
)
def test_no_body_above_the_bound_gets_through(environ, body, status):
    call = Call(size_limit.layer(echo, 10, refuse), "/", body, PUBLIC=1, **environ)
    assert call.status[:3] == status
    if status == "200":
        assert call.body == body


def test_noauth2_believes_the_headers(conf):
    app = auth.layer(echo, conf)

    def context(**headers: str) -> Any:
        return Call(app, **headers).environ[auth.CONTEXT]

    admin = context(HTTP_X_AUTH_TOKEN="admin")
    assert (admin.user_id, admin.project_id, admin.roles) == ("admin", "admin", ["admin", "service"])
    assert context(HTTP_X_AUTH_TOKEN="ann").roles == []
    assert context(HTTP_X_AUTH_TOKEN="ann:p1").project_id == "p1"
    assert context(HTTP_X_AUTH_TOKEN="ann:p1", HTTP_X_PROJECT_ID="p2").project_id == "p2"
    assert context(HTTP_X_AUTH_TOKEN="admin", HTTP_X_ROLES="reader").roles == ["reader"]
    assert context(HTTP_X_AUTH_TOKEN="admin", HTTP_OPENSTACK_SYSTEM_SCOPE="all").system_scope == "all"


def test_without_a_token_nobody_is_known_and_a_401_is_challenged(conf):
    call = Call(auth.layer(echo, conf))
    assert (call.status[:3], call.headers["www-authenticate"]) == ("401", "noauth2")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_http_basic_knows_the_users_of_the_file_and_forgets_who_is_taken_out(conf, tmp_path):
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    conf.set_override("auth_strategy", "http_basic", group="api")
    conf.set_override("http_basic_auth_user_file", str(file), group="api")
    app = auth.layer(echo, conf)
    for _ in range(2):
        call = Call(app, HTTP_AUTHORIZATION=basic("ann", "secret"))
        assert call.status[:3] == "200"
        assert call.environ[auth.CONTEXT].user_id == "ann"
    for wrong in (basic("ann", "wrong"), basic("bob", "secret"), "Basic ?", "Bearer x", "", "Basic"):
        call = Call(app, HTTP_AUTHORIZATION=wrong)
        assert (call.status[:3], call.headers["www-authenticate"]) == ("401", 'Basic realm="accelsched"')
    file.write_text("\n")
    assert Call(app, HTTP_AUTHORIZATION=basic("ann", "secret")).status[:3] == "401"


def test_a_strategy_that_lacks_something_is_a_configuration_error(conf, tmp_path):
    conf.set_override("auth_strategy", "http_basic", group="api")
    conf.set_override("http_basic_auth_user_file", str(tmp_path / "none"), group="api")
    with pytest.raises(errors.ConfigurationError, match="http_basic_auth_user_file"):
        auth.layer(echo, conf)
    conf.set_override("auth_strategy", "keystone", group="api")
    with pytest.raises(errors.ConfigurationError, match="keystone_authtoken"):
        auth.layer(echo, conf)
