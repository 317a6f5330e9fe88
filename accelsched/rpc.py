# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who talks to whom over oslo.messaging, and the typed clients for it.

======================  ==========================  =====================================================
topic                   served by                   methods
======================  ==========================  =====================================================
accelsched-controller   accelsched-scheduler        report_host, heartbeat, fetch_assignments,
                                                    report_observations
accelsched-scheduler    accelsched-scheduler        place (a hint)
accelsched-agent        accelsched-agent, one       sync (a hint), console_output, diagnostics,
                                                    trigger_crash_dump; list_files and
                        queue for each process      read_file, from agents that a server goes to
======================  ==========================  =====================================================

Casts are hints that make something happen sooner; whatever they ask for happens without them too. Calls wait for
an answer. Every method may be repeated.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from oslo_config import cfg
from oslo_service import backend as service_backend

from accelsched import errors, message_faults, wire

# oslo.messaging asks oslo.service for its backend while it is imported; unasked, that is eventlet. A dependency still
# imports eventlet where it is installed, which warns at every start though nothing here uses it.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
service_backend.init_backend(service_backend.BackendType.THREADING)

import kombu.exceptions  # noqa: E402
import oslo_messaging as messaging  # noqa: E402
from oslo_messaging import opts as messaging_options  # noqa: E402

CONTROLLER_TOPIC = "accelsched-controller"
SCHEDULER_TOPIC = "accelsched-scheduler"
AGENT_TOPIC = "accelsched-agent"
VERSION = "1.0"

#: What goes wrong with a message on its way; a broker that refuses the first connection is kombu's to tell.
MESSAGING_ERRORS = (messaging.MessagingException, kombu.exceptions.KombuError, OSError)
#: Nobody answered a call in time.
MessagingTimeout = messaging.MessagingTimeout

# Errors that cross the wire as themselves; any other arrives as RemoteError.
_ALLOWED_REMOTE = ["accelsched.errors"]
# More hosts than this are asked for in several calls, so that no message grows with the fleet.
_BATCH = 500


class Server(Protocol):
    """What :func:`serve` returns."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self) -> None: ...


def list_options() -> list[tuple[str | None, list[cfg.Opt]]]:
    """Return oslo.messaging's options by group."""
    options: list[tuple[str | None, list[cfg.Opt]]] = messaging_options.list_opts()
    return options


def register_options(conf: cfg.ConfigOpts) -> None:
    """Register oslo.messaging's options (``transport_url`` ...) before a transport is made."""
    for group, options in list_options():
        conf.register_opts(options, group=group)
    # oslo.messaging 18 reads these groups from the options it is given but registers them on the global ones only.
    for part in ("tracing", "metrics"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"oslo_messaging._{part}.client")
            conf.register_opts(getattr(module, f"oslo_messaging_{part}"), group=f"oslo_messaging_{part}")


def transport(conf: cfg.ConfigOpts) -> Any:
    """Return the transport of ``[DEFAULT] transport_url`` (``fake://`` stays inside this process).

    :raises accelsched.errors.ConfigurationError: when the URL makes no sense
    """
    try:
        return messaging.get_rpc_transport(conf, allowed_remote_exmods=_ALLOWED_REMOTE)
    except messaging.DriverLoadFailure as exc:
        raise errors.ConfigurationError(f"[DEFAULT] transport_url: {exc}") from exc
    except messaging.InvalidTransportURL:
        # Its text repeats the URL, which may hold a password.
        raise errors.ConfigurationError(
            "[DEFAULT] transport_url: is not a transport URL, for example rabbit://USER:PASSWORD@HOST:5672/"
        ) from None


def serve(transport_: Any, topic: str, server: str, endpoint: object) -> Server:
    """Return a server, not yet started, that answers a topic's messages on the public methods of ``endpoint``.

    :param server: name of this server; messages can be sent to it alone
    :param endpoint: its ``target`` attribute, if any, says the version it serves
    """
    target = messaging.Target(topic=topic, server=server)
    policy = messaging.rpc.dispatcher.DefaultRPCAccessPolicy
    result: Server = messaging.get_rpc_server(
        transport_, target, [endpoint], executor="threading", access_policy=policy
    )
    return result


def endpoint_target(version: str = VERSION) -> Any:
    """Return the ``target`` attribute of an endpoint that answers what its version and earlier ones have."""
    return messaging.Target(version=version)


class _Client:
    # How often a message whose broker is away is tried again; None: for ever.
    _retry: int | None = None

    def __init__(self, transport_: Any, topic: str, timeout_s: float) -> None:
        self._client = messaging.get_rpc_client(
            transport_, messaging.Target(topic=topic, version=VERSION), timeout=timeout_s, retry=self._retry
        )

    def _call(self, method: str, server: str | None = None, /, version: str = VERSION, **kwargs: Any) -> Any:
        client = self._client.prepare(server=server, version=version) if server else self._client
        return message_faults.send(lambda: client.call({}, method, **kwargs), lambda: _time_out(method))

    def _cast(self, method: str, server: str | None = None, /, **kwargs: Any) -> None:
        client = self._client.prepare(server=server) if server else self._client
        message_faults.send(lambda: client.cast({}, method, **kwargs), lambda: None)


def _time_out(method: str) -> Any:
    raise MessagingTimeout(f"{method}: a test wants it unanswered")


class ControllerClient(_Client):
    """The control plane as agents see it."""

    def __init__(self, transport_: Any, timeout_s: float = 20.0) -> None:
        super().__init__(transport_, CONTROLLER_TOPIC, timeout_s)

    def report_host(self, report: wire.HostReport, control_plane: str | None) -> str:
        """Tell what a host is and has. Unchanged reports cost nothing but the message.

        :param control_plane: the one that this host belongs to; None before the first report
        :returns: which control plane answers
        :raises accelsched.errors.ConflictError: when another node already goes by this host's name, or when the host
            belongs to another control plane
        """
        answer: str = self._call("report_host", report=report, control_plane=control_plane)
        return answer

    def heartbeat(self, hosts: Sequence[str]) -> list[str]:
        """Say that these hosts are alive.

        :returns: those of them that the control plane does not know and that must be reported anew
        """
        unknown: list[str] = []
        for start in range(0, len(hosts), _BATCH):
            unknown += self._call("heartbeat", hosts=list(hosts[start : start + _BATCH]))
        return unknown

    def fetch_assignments(self, hosts: Sequence[str], control_plane: str | None) -> list[wire.Assignment]:
        """Return everything that is wanted on these hosts, what is to be deleted included.

        :param control_plane: the one that the hosts belong to
        :raises accelsched.errors.ConflictError: when another one answers
        """
        assignments: list[wire.Assignment] = []
        for start in range(0, len(hosts), _BATCH):
            assignments += self._call(
                "fetch_assignments", hosts=list(hosts[start : start + _BATCH]), control_plane=control_plane
            )
        return assignments

    def report_observations(self, observations: Sequence[wire.Observation]) -> None:
        """Tell what was seen of servers."""
        for start in range(0, len(observations), _BATCH):
            self._call("report_observations", observations=list(observations[start : start + _BATCH]))


class SchedulerClient(_Client):
    """The schedulers as the API sees them."""

    _retry = 1  # an API request must not wait for a broker

    def __init__(self, transport_: Any, timeout_s: float = 60.0) -> None:
        super().__init__(transport_, SCHEDULER_TOPIC, timeout_s)

    def place(self) -> None:
        """Hint that there are new requests to place."""
        self._cast("place")


class AgentClient(_Client):
    """Agents as the control plane sees them; ``agent`` is the queue that the host's report named."""

    _retry = 1

    def __init__(self, transport_: Any, timeout_s: float = 20.0) -> None:
        super().__init__(transport_, AGENT_TOPIC, timeout_s)

    def sync(self, agent: str, hosts: Sequence[str]) -> None:
        """Hint that something new is wanted on these hosts."""
        self._cast("sync", agent, hosts=list(hosts))

    def console_output(self, agent: str, host: str, server_uuid: str, length: int | None) -> str:
        """Return the last ``length`` lines of a server's serial console; all that is kept when None.

        :raises accelsched.errors.NotFoundError: when the server is not on that host
        """
        output: str = self._call("console_output", agent, host=host, server_uuid=server_uuid, length=length)
        return output

    def diagnostics(self, agent: str, host: str, server_uuid: str) -> wire.Diagnostics:
        """Return what a server's domain does at this moment.

        :raises accelsched.errors.NotFoundError: when the server is not on that host, or does not run
        """
        told: wire.Diagnostics = self._call("diagnostics", agent, version="1.1", host=host, server_uuid=server_uuid)
        return told

    def trigger_crash_dump(self, agent: str, host: str, server_uuid: str) -> None:
        """Have a server's guest get an NMI, of which its kernel makes a crash dump if it was told to.

        :raises accelsched.errors.NotFoundError: when the server is not on that host, or does not run
        :raises accelsched.errors.ConflictError: when its hypervisor refuses, or cannot
        """
        self._call("trigger_crash_dump", agent, version="1.3", host=host, server_uuid=server_uuid)

    def list_files(self, agent: str, host: str, server_uuid: str) -> dict[str, int]:
        """Return the files of a server that is set aside: the size of each, in bytes, by name.

        :raises accelsched.errors.NotFoundError: when nothing of the server is there
        :raises accelsched.errors.ConflictError: when it is not set aside
        """
        files: dict[str, int] = self._call("list_files", agent, host=host, server_uuid=server_uuid)
        return files

    def read_file(self, agent: str, host: str, server_uuid: str, name: str, offset: int) -> wire.Chunk:
        """Return a part of one of these files.

        :param offset: where it begins, bytes
        :raises accelsched.errors.NotFoundError: when there is no such file
        :raises accelsched.errors.ConflictError: when the server is not set aside
        """
        chunk: wire.Chunk = self._call("read_file", agent, host=host, server_uuid=server_uuid, name=name, offset=offset)
        return chunk

    def departure(self, agent: str, host: str, server_uuid: str) -> wire.Departure:
        """Return what is to be known of a server that runs, to make ready for it elsewhere.

        :raises accelsched.errors.NotFoundError: when it is not there
        :raises accelsched.errors.UnavailableError: when it is not known to be about to go
        """
        told: wire.Departure = self._call("departure", agent, version="1.2", host=host, server_uuid=server_uuid)
        return told

    def read_departing_file(self, agent: str, host: str, server_uuid: str, name: str, offset: int) -> wire.Chunk:
        """Return a part of one of the files that :meth:`departure` names.

        :raises accelsched.errors.NotFoundError: when there is no such file
        :raises accelsched.errors.UnavailableError: when the server is not known to be about to go
        """
        arguments = {"host": host, "server_uuid": server_uuid, "name": name, "offset": offset}
        chunk: wire.Chunk = self._call("read_departing_file", agent, version="1.2", **arguments)
        return chunk

    def landing(self, agent: str, host: str, server_uuid: str, domain: str) -> wire.Landing:
        """Return what a server that runs elsewhere finds on a host that waits for it.

        :param domain: its definition where it runs
        :raises accelsched.errors.NotFoundError: when it is not awaited there
        :raises accelsched.errors.ConflictError: when what was made for it does not fit
        """
        arguments = {"host": host, "server_uuid": server_uuid, "domain": domain}
        told: wire.Landing = self._call("landing", agent, version="1.2", **arguments)
        return told

    def landed(self, agent: str, host: str, server_uuid: str) -> bool:
        """Tell whether a server that was to come runs on a host now."""
        told: bool = self._call("landed", agent, version="1.2", host=host, server_uuid=server_uuid)
        return told
