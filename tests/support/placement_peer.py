# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""OpenStack Placement itself, from PyPI, run beside ours: ``python placement_peer.py serve DIR PORT`` is its server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import patience

RELEASE = "16.0.0"
PREFIX = "/placement"


def home() -> Path:
    """Return where the peer is installed: outside the project, kept between runs."""
    cache = Path(os.environ.get("ACCELSCHED_CACHE", "/var/cache/accelsched"))
    if not os.access(cache if cache.exists() else cache.parent, os.W_OK):
        cache = Path.home() / ".cache" / "accelsched"
    return cache / "peers" / f"placement-{RELEASE}"


def install() -> Path:
    """Install the peer into a virtual environment of its own, if it is not there, and return its Python."""
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            shutil.rmtree(target, ignore_errors=True)
            venv.create(target, with_pip=True)
            subprocess.run(
                [target / "bin" / "pip", "install", "--quiet", f"openstack-placement=={RELEASE}"],
                check=True,
                timeout=patience.LIMIT_S,
            )
            (target / "complete").touch()
    return target / "bin" / "python"


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(directory: Path) -> Iterator[str]:
    """Run the peer on SQLite with noauth2 and give its URL."""
    python = install()
    (directory / "placement.conf").write_text(
        "[api]\nauth_strategy = noauth2\n"
        "[placement_database]\n"
        f"connection = sqlite:///{directory}/placement.db\nsync_on_startup = true\n"
    )
    port = free_port()
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [python, __file__, "serve", str(directory), str(port)], stdout=log, stderr=subprocess.STDOUT
    )
    url = f"http://127.0.0.1:{port}{PREFIX}"
    try:
        deadline = time.monotonic() + patience.LIMIT_S
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except (OSError, urllib.error.URLError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Placement did not start:\n{(directory / 'log').read_text()}") from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(patience.LIMIT_S)
        log.close()


def _serve(directory: str, port: int) -> None:
    """Serve the peer below the prefix; runs in its own virtual environment."""
    import socketserver
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    os.environ["OS_PLACEMENT_CONFIG_DIR"] = directory
    sys.argv = ["placement"]
    from placement.wsgi import init_application  # type: ignore[import-not-found]

    app = init_application()

    def mounted(environ, start_response):  # type: ignore[no-untyped-def]
        path = environ["PATH_INFO"]
        if path.startswith(PREFIX):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = PREFIX, path[len(PREFIX) :] or "/"
        return app(environ, start_response)

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def get_environ(self):  # type: ignore[no-untyped-def]
            environ = super().get_environ()
            if "content-type" not in self.headers:
                # wsgiref would make one up.
                del environ["CONTENT_TYPE"]
            return environ

        def log_message(self, *_args: object) -> None:
            pass

    class Threads(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True

    make_server("127.0.0.1", port, mounted, Threads, Handler).serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[2], int(sys.argv[3]))
