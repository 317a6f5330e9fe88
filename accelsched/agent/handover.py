# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a server that comes from another host, fetched from the agent there.

Over the message broker, chunk by chunk, one at a time: agents have no credentials for each other and listen on no port,
but each has a connection to the broker that it has proved itself on already. No more than one chunk of a file is ever
under way, and each comes with its checksum.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import tenacity

from accelsched import errors, rpc, wire
from accelsched.agent import files
from accelsched.agent.virt.base import BuildError, Progress

CHUNK_BYTES = 1 << 20

_ATTEMPTS = 5
_TIMEOUT_S = 10.0

_Answer = TypeVar("_Answer")


def client(transport: object) -> rpc.AgentClient:
    """Return the client by which agents ask each other."""
    return rpc.AgentClient(transport, _TIMEOUT_S)


def read(path: Path, offset: int) -> wire.Chunk:
    """Return one chunk of a file.

    :param offset: bytes; at or beyond the end there is nothing
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(CHUNK_BYTES)
    return {"data": base64.b64encode(data).decode("ascii"), "sha256": hashlib.sha256(data).hexdigest()}


class Source:
    """A server's files on the host that has set it aside, or, of one that runs there, those that nobody writes to."""

    def __init__(
        self,
        agents: rpc.AgentClient,
        origin: wire.Origin,
        server_uuid: str,
        progress: Progress,
        *,
        running: bool = False,
    ) -> None:
        self.host = origin["host"]
        self._agents = agents
        self._agent = origin["agent"]
        self._lost = origin.get("lost", False)
        self._server_uuid = server_uuid
        self._progress = progress
        self._read_file = agents.read_departing_file if running else agents.read_file

    def departure(self) -> wire.Departure:
        """Return what is to be known of a server that runs there.

        :raises accelsched.errors.NotFoundError: when it is not there
        :raises accelsched.errors.UnavailableError: when the agent there does not answer
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        return self._ask(lambda: self._agents.departure(self._agent, self.host, self._server_uuid))

    def files(self) -> dict[str, int]:
        """Return the size of each file, in bytes, by name.

        :raises accelsched.agent.virt.base.BuildError: when that host is lost
        :raises accelsched.errors.NotFoundError: when nothing of the server is there
        :raises accelsched.errors.ConflictError: when it is not set aside
        :raises accelsched.errors.UnavailableError: when the agent there does not answer
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        return self._ask(lambda: self._agents.list_files(self._agent, self.host, self._server_uuid))

    def fetch(self, name: str, size: int, path: Path) -> None:
        """Copy a file to ``path``, durably. A copy that was cut short is gone on with.

        :param size: bytes, as :meth:`files` says
        :raises accelsched.agent.virt.base.BuildError: when that host is lost
        :raises accelsched.errors.NotFoundError: when there is no such file any more
        :raises accelsched.errors.UnavailableError: when the agent there does not answer, or sends something else
        :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
        """
        self._progress.step(f"fetching {name} from host {self.host}")
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            # Where a power cut ended it, the last chunk may be torn.
            begun = max(os.fstat(file.fileno()).st_size // CHUNK_BYTES - 1, 0) * CHUNK_BYTES
            begun = begun if begun < size else 0
            file.truncate(begun)
            file.seek(begun)
            for data in self._chunks(name, size, begun):
                file.write(data)
                file.flush()
                os.fdatasync(file.fileno())
        files.sync_directory(path.parent)

    def _chunks(self, name: str, size: int, offset: int) -> Iterator[bytes]:
        while offset < size:
            data = self._ask(lambda: self._read(name, offset, min(CHUNK_BYTES, size - offset)))  # noqa: B023 - at once
            yield data
            offset += len(data)

    def _read(self, name: str, offset: int, length: int) -> bytes:
        chunk = self._read_file(self._agent, self.host, self._server_uuid, name, offset)
        data = base64.b64decode(chunk["data"])
        if len(data) != length or not hmac.compare_digest(hashlib.sha256(data).hexdigest(), chunk["sha256"]):
            raise errors.UnavailableError(f"what host {self.host} sent of {name} is damaged")
        return data

    def _ask(self, call: Callable[[], _Answer]) -> _Answer:
        """Ask, and again when there was no answer, or no good one; a host that is lost is not asked."""
        if self._lost:
            raise BuildError(f"host {self.host} was lost before the server's files were fetched from there")
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_exponential(multiplier=0.5, max=5),
            retry=tenacity.retry_if_exception_type((*rpc.MESSAGING_ERRORS, errors.UnavailableError)),
            sleep=self._pause,
            reraise=True,
        )
        try:
            for attempt in retrying:
                self._progress.check()
                with attempt:
                    return call()
        except rpc.MESSAGING_ERRORS as exc:
            raise errors.UnavailableError(f"the agent of host {self.host} does not answer: {exc}") from exc
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, seconds: float) -> None:
        self._progress.cancelled.wait(seconds)


class Destination:
    """The host that a server which runs is to go to."""

    def __init__(self, agents: rpc.AgentClient, destination: wire.Destination, server_uuid: str) -> None:
        self.host = destination["host"]
        self.aborted = destination.get("abort", False)
        self._agents = agents
        self._agent = destination["agent"]
        self._server_uuid = server_uuid

    def landing(self, domain: str) -> wire.Landing:
        """Return what the server finds there.

        :param domain: its definition here
        :raises accelsched.errors.NotFoundError: when it is not awaited there
        :raises accelsched.errors.ConflictError: when what was made for it does not fit, or there is no answer
        """
        try:
            return self._agents.landing(self._agent, self.host, self._server_uuid, domain)
        except rpc.MESSAGING_ERRORS as exc:  # the server stays then: nobody waits for an agent that is away
            raise errors.ConflictError(f"the agent of host {self.host} does not answer: {exc}") from exc

    def landed(self) -> bool:
        """Tell whether the server runs there.

        :raises accelsched.errors.UnavailableError: when the agent there does not answer
        """
        try:
            return self._agents.landed(self._agent, self.host, self._server_uuid)
        except rpc.MESSAGING_ERRORS as exc:
            raise errors.UnavailableError(f"the agent of host {self.host} does not answer: {exc}") from exc
