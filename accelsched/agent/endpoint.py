# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the control plane can ask an agent over RPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelsched import errors, rpc, wire
from accelsched.agent import handover
from accelsched.agent.host import Host


class Endpoint:
    """RPC methods of topic ``accelsched-agent``; may be repeated, all of them."""

    target = rpc.endpoint_target(wire.AGENT_VERSION)

    def __init__(self, hosts: Mapping[str, Host], look_again: Callable[[Sequence[str]], None], limit: int) -> None:
        """
        :param look_again: called with names of hosts whose assignments should be fetched now
        :param limit: most characters of a console that are returned
        """
        self._hosts = hosts
        self._look_again = look_again
        self._limit = limit

    def sync(self, ctxt: Mapping[str, Any], hosts: Sequence[str]) -> None:
        """Fetch the assignments of these hosts soon."""
        self._look_again([host for host in hosts if host in self._hosts])

    @rpc.messaging.expected_exceptions(errors.NotFoundError)  # type: ignore[attr-defined, untyped-decorator]
    def console_output(self, ctxt: Mapping[str, Any], host: str, server_uuid: str, length: int | None = None) -> str:
        """Return the last ``length`` lines of a server's console; all that is kept when None.

        :raises accelsched.errors.NotFoundError: when the server is not on that host
        """
        output = self._host(host).virt.console_output(server_uuid)[-self._limit :]
        if length is None or length < 0:
            return output
        return "".join(output.splitlines(keepends=True)[-length:]) if length else ""

    @rpc.messaging.expected_exceptions(errors.NotFoundError)  # type: ignore[attr-defined, untyped-decorator]
    def diagnostics(self, ctxt: Mapping[str, Any], host: str, server_uuid: str) -> wire.Diagnostics:
        """Return what a server's domain does at this moment.

        :raises accelsched.errors.NotFoundError: when the server is not on that host, or does not run
        """
        return self._host(host).virt.diagnostics(server_uuid)

    @rpc.messaging.expected_exceptions(errors.NotFoundError, errors.ConflictError)  # type: ignore[attr-defined, untyped-decorator]
    def trigger_crash_dump(self, ctxt: Mapping[str, Any], host: str, server_uuid: str) -> None:
        """Have a server's guest get an NMI.

        :raises accelsched.errors.NotFoundError: when the server is not on that host, or does not run
        :raises accelsched.errors.ConflictError: when its hypervisor refuses, or cannot
        """
        self._host(host).virt.inject_nmi(server_uuid)

    @rpc.messaging.expected_exceptions(errors.NotFoundError, errors.ConflictError)  # type: ignore[attr-defined, untyped-decorator]
    def list_files(self, ctxt: Mapping[str, Any], host: str, server_uuid: str) -> dict[str, int]:
        """Return the files of a server that is set aside: the size of each, in bytes, by name.

        :raises accelsched.errors.NotFoundError: when nothing of the server is there
        :raises accelsched.errors.ConflictError: when it is not set aside
        """
        return {name: path.stat().st_size for name, path in self._host(host).virt.files_aside(server_uuid).items()}

    @rpc.messaging.expected_exceptions(errors.NotFoundError, errors.ConflictError)  # type: ignore[attr-defined, untyped-decorator]
    def read_file(self, ctxt: Mapping[str, Any], host: str, server_uuid: str, name: str, offset: int) -> wire.Chunk:
        """Return a part of one of these files, from so many bytes on.

        :raises accelsched.errors.NotFoundError: when there is no such file
        :raises accelsched.errors.ConflictError: when the server is not set aside
        """
        path = self._host(host).virt.files_aside(server_uuid).get(name)
        if path is None:
            raise errors.NotFoundError(f"server {server_uuid} has no {name!r} on host {host}")
        return handover.read(path, offset)

    @rpc.messaging.expected_exceptions(errors.NotFoundError, errors.UnavailableError)  # type: ignore[attr-defined, untyped-decorator]
    def departure(self, ctxt: Mapping[str, Any], host: str, server_uuid: str) -> wire.Departure:
        """Return what is to be known of a server that runs, to make ready for it elsewhere.

        :raises accelsched.errors.NotFoundError: when it is not there
        :raises accelsched.errors.UnavailableError: when it is not known to be about to go
        """
        self._hear_of(host, server_uuid)
        return self._host(host).departure(server_uuid)

    @rpc.messaging.expected_exceptions(errors.NotFoundError, errors.UnavailableError)  # type: ignore[attr-defined, untyped-decorator]
    def read_departing_file(
        self, ctxt: Mapping[str, Any], host: str, server_uuid: str, name: str, offset: int
    ) -> wire.Chunk:
        """Return a part of one of a server's files that nobody writes to.

        :raises accelsched.errors.NotFoundError: when there is no such file
        :raises accelsched.errors.UnavailableError: when the server is not known to be about to go
        """
        self._hear_of(host, server_uuid)
        return handover.read(self._host(host).departing_file(server_uuid, name), offset)

    def _hear_of(self, host: str, server_uuid: str) -> None:
        """Ask the control plane whether a server is to go, if that was not heard: who asks will ask again."""
        if server_uuid not in self._host(host).departing:
            self._look_again([host])

    @rpc.messaging.expected_exceptions(errors.NotFoundError, errors.ConflictError)  # type: ignore[attr-defined, untyped-decorator]
    def landing(self, ctxt: Mapping[str, Any], host: str, server_uuid: str, domain: str) -> wire.Landing:
        """Return what a server that runs elsewhere finds here.

        :raises accelsched.errors.NotFoundError: when it is not awaited here
        :raises accelsched.errors.ConflictError: when what was made for it does not fit
        """
        return self._host(host).virt.landing(server_uuid, domain)

    def landed(self, ctxt: Mapping[str, Any], host: str, server_uuid: str) -> bool:
        """Tell whether a server that was to come runs here now."""
        return self._host(host).virt.landed(server_uuid)

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            raise errors.NotFoundError(f"host {name} is not served by this agent")
        return self._hosts[name]
