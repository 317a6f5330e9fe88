# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the control plane can ask an agent over RPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelsched import errors, rpc, wire
from accelsched.agent.host import Host


class Endpoint:
    """RPC methods of topic ``accelsched-agent``; may be repeated, all of them."""

    target = rpc.endpoint_target()

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

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            raise errors.NotFoundError(f"host {name} is not served by this agent")
        return self._hosts[name]
