# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The API under a WSGI server of the operator's choice, with HTTP Basic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bcrypt
import patience
import requests
from deployments import answers
from stack import http

_BIN = Path(sys.executable).parent


def test_any_wsgi_server_serves_it_and_http_basic_lets_the_files_users_in(tmp_path: Path) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    options = tmp_path / "accelsched.conf"
    options.write_text(
        f"[DEFAULT]\ntransport_url = fake://\n[api]\nauth_strategy = http_basic\nhttp_basic_auth_user_file = {users}\n"
        f"[database]\nconnection = sqlite:///{tmp_path}/accelsched.sqlite\n"
    )
    subprocess.run(
        [_BIN / "accelsched-manage", "--config-file", options, "db", "upgrade"], check=True, timeout=patience.LIMIT_S
    )
    url = f"http://127.0.0.1:{http.free_port()}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(_BIN / "gunicorn", "--no-control-socket", "--bind", url.removeprefix("http://")),
                "accelsched.api.wsgi:application",
            ],
            env={**os.environ, "ACCELSCHED_CONFIG_FILES": str(options)},
            stdout=log,
            stderr=log,
        )
    try:
        patience.wait(lambda: server.poll() is not None or answers(f"{url}/healthcheck"))
        path = f"{url}/compute/v2.1/flavors"
        assert requests.get(path, auth=("ann", "secret"), timeout=patience.LIMIT_S).json() == {"flavors": []}
        for auth in (None, ("ann", "wrong"), ("bob", "secret")):
            refused = requests.get(path, auth=auth, timeout=patience.LIMIT_S)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == 'Basic realm="accelsched"'
            assert refused.json()["unauthorized"]["code"] == 401
        flavor = {"flavor": {"name": "f", "ram": 64, "vcpus": 1, "disk": 1}}
        assert requests.post(path, json=flavor, auth=("ann", "secret"), timeout=patience.LIMIT_S).status_code == 200
    finally:
        server.terminate()
        server.wait(patience.LIMIT_S)
    assert "secret" not in (tmp_path / "log").read_text()
