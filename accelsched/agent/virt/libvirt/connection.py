# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A connection to libvirtd that survives libvirtd's restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from accelsched import errors

_Result = TypeVar("_Result")

# libvirt's bindings print every error to stderr unless they are told not to; ours are raised and logged.
libvirt.registerErrorHandler(lambda _context, _error: None, None)


class Connection:
    """One libvirt connection, used by any number of threads (its calls are thread-safe and release the GIL)."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None

    def call(self, function: Callable[[Any], _Result]) -> _Result:
        """Return ``function(connection)``; repeated once over a new connection when the old one turns out dead.

        :param function: may be repeated
        :raises accelsched.errors.UnavailableError: when libvirtd does not answer
        :raises libvirt.libvirtError: any other failure
        """
        connection = self._get()
        try:
            return function(connection)
        except libvirt.libvirtError:
            if self._alive(connection):
                raise
        self._drop(connection)
        connection = self._get()
        try:
            return function(connection)
        except libvirt.libvirtError as exc:
            if self._alive(connection):
                raise
            self._drop(connection)
            raise errors.UnavailableError(f"libvirt at {self._uri} does not answer: {exc}") from exc

    def ask(self, function: Callable[[Any], _Result], what: str) -> _Result:
        """Return ``function(connection)``, as :meth:`call`.

        :param what: that libvirt is to do, to say when it cannot
        :raises accelsched.errors.UnavailableError: when it fails, however that is
        """
        try:
            return self.call(function)
        except libvirt.libvirtError as exc:
            raise errors.UnavailableError(f"libvirt cannot {what}: {exc}") from exc

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        _close(connection)

    def _get(self) -> Any:
        with self._lock:
            if self._connection is None:
                try:
                    self._connection = libvirt.open(self._uri)
                except libvirt.libvirtError as exc:
                    raise errors.UnavailableError(f"libvirt at {self._uri} does not answer: {exc}") from exc
            return self._connection

    def _drop(self, connection: Any) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None
        _close(connection)

    @staticmethod
    def _alive(connection: Any) -> bool:
        try:
            return bool(connection.isAlive())
        except libvirt.libvirtError:
            return False


def _close(connection: Any) -> None:
    if connection is not None:
        try:
            connection.close()
        except libvirt.libvirtError:
            return
