# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The two servers, each behind gunicorn with as many workers and threads, each on a database of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import databases
import placement_peer
import sqlalchemy

from accelsched.db import migrations
from accelsched.db.engine import Database
from harness import client, tables

_START_S = 120.0
_STOP_S = 20.0
# Placement's enumeration of eight isolated groups would take the machine with it.
_PEER_MEMORY = 6 << 30
_TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Shape:
    """How many processes and threads a server has."""

    workers: int = 2
    threads: int = 8


class Server:
    """A server that can be started and stopped; its database stays."""

    def __init__(
        self, name: str, prefix: str, command: Callable[[int, Shape], list[str]], url: str, directory: Path
    ) -> None:
        """Describe the server; :meth:`start` runs it.

        :param command: arguments for a port and a shape
        :param prefix: path below which it answers
        """
        self.name = name
        self.prefix = prefix
        self.url = url
        self.port = 0
        self.environ: Mapping[str, str] = {}
        self.memory: int | None = None
        self._command = command
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, shape: Shape = Shape()) -> None:
        """Run it and wait until it answers.

        :raises RuntimeError: with the end of its log, when it does not
        """
        self.port = placement_peer.free_port()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(self.port, shape),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environ},
                start_new_session=True,
            )
        if self.memory is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_AS, (self.memory, self.memory))
        deadline = time.monotonic() + _START_S
        while True:
            try:
                probe = client.Client(self.port)
                answer = probe.ask(client.render("GET", self.prefix + "/"), timeout=60.0)
                probe.close()
                if answer.status == 200:
                    return
            except (OSError, TimeoutError):
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and its workers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # One that is lost in an enumeration does not hear.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Kill it where it stands and start it anew."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.start()

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        if self._process is None:
            return []
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def cpu_seconds(self) -> float:
        """Return the processor time that its workers have used, and PostgreSQL on its behalf."""
        return sum(map(cpu_seconds, self.workers())) + database_cpu_seconds(self.url)

    def memory_mib(self, field: str = "VmRSS") -> list[float]:
        """Return the resident memory of each worker; ``VmHWM`` for the most it ever was."""
        sizes = []
        for pid in self.workers():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    sizes.append(int(line.split()[1]) / 1024)
        return sizes


def database_cpu_seconds(url: str) -> float:
    """Return the processor time of PostgreSQL's processes that work on a database now; 0 for other servers.

    :param url: SQLAlchemy's, of the database
    """
    # PostgreSQL writes into a process's command line which database it works on.
    database = (sqlalchemy.make_url(url).database or "").encode()
    spent = 0.0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if line.startswith(b"postgres:") and database in line:
                spent += cpu_seconds(int(path.parent.name))
    return spent


@contextlib.contextmanager
def ours(kind: str, hosts: int, directory: Path, transport: str = "fake://") -> Iterator[Server]:
    """Give accelsched-api on a database with the fleet; not started yet.

    :param kind: postgresql or sqlite
    :param hosts: number of vGPU hosts
    """
    directory.mkdir(parents=True, exist_ok=True)
    with databases.fresh(kind, directory) as url:
        db = Database(url)
        migrations.upgrade(db)
        db.dispose()
        tables.fill_ours(url, hosts)
        config = directory / "accelsched.conf"

        def command(port: int, shape: Shape) -> list[str]:
            config.write_text(
                f"[DEFAULT]\ntransport_url = {transport}\n[database]\nconnection = {url}\n"
                f"[api]\nauth_strategy = noauth2\nbind_port = {port}\n"
                f"workers = {shape.workers}\nthreads = {shape.threads}\n"
            )
            return [str(Path(sys.executable).parent / "accelsched-api"), "--config-file", str(config)]

        server = Server("accelsched", "/placement", command, url, directory)
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def placement(kind: str, hosts: int, directory: Path) -> Iterator[Server]:
    """Give openstack-placement on a database with the fleet; not started yet.

    :param kind: postgresql or sqlite
    :param hosts: number of vGPU hosts
    """
    directory.mkdir(parents=True, exist_ok=True)
    python = _installed()
    with databases.fresh(kind, directory) as url:
        (directory / "placement.conf").write_text(
            f"[api]\nauth_strategy = noauth2\n[placement_database]\nconnection = {url}\nsync_on_startup = true\n"
        )

        def command(port: int, shape: Shape) -> list[str]:
            gunicorn = ["-m", "gunicorn", "--worker-class", "gthread", "--timeout", "600"]
            size = ["--workers", str(shape.workers), "--threads", str(shape.threads)]
            disabled = ["--no-control-socket"] if _has_control_socket() else []
            bind = ["--bind", f"127.0.0.1:{port}", "placement.wsgi.api:application"]
            return [str(python), *gunicorn, *size, *disabled, *bind]

        server = Server("placement", "", command, url, directory)
        server.environ = {"OS_PLACEMENT_CONFIG_DIR": str(directory)}
        server.memory = _PEER_MEMORY
        try:
            # Its tables, traits and classes are made by its start; two workers would make them twice.
            server.start(Shape(1, 1))
            server.stop()
            tables.fill_placement(url, hosts)
            yield server
        finally:
            server.stop()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _has_control_socket() -> bool:
    from gunicorn.config import Config

    return "control_socket_disable" in Config().settings


def _installed() -> Path:
    """Return the Python of the peer's environment, with the same gunicorn and driver as ours."""
    python = placement_peer.install()
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in ("gunicorn", "psycopg2-binary")]
    with (placement_peer.home() / "benchmark.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        frozen = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
        if missing := set(wanted) - set(frozen.split()):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *sorted(missing)], check=True, timeout=300)
    return python


def machine() -> dict[str, object]:
    """Return what the numbers depend on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    return {
        "processors": os.cpu_count(),
        "model": model.partition(":")[2].strip(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": sys.version.split()[0],
        "placement": placement_peer.RELEASE,
        "gunicorn": importlib.metadata.version("gunicorn"),
        "sqlalchemy": sqlalchemy.__version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
