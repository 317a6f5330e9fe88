# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over kept connections, as lean as it gets: the client shares its cores with what it measures."""

from __future__ import annotations

import collections
import dataclasses
import re
import selectors
import socket
import time
from collections.abc import Iterator, Sequence

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_CHUNK = 1 << 20
_APART_S = 0.02


def render(method: str, path: str, body: bytes = b"", version: str = "placement 1.39") -> bytes:
    """Return a request of the operator, as it goes over the wire.

    :param version: service and microversion
    """
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Auth-Token: admin\r\n"
        f"OpenStack-API-Version: {version}\r\nAccept: application/json\r\n"
    )
    if body or method in ("PUT", "POST"):
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, and how long after the request was sent, in seconds."""

    status: int
    body: bytes
    seconds: float


class _Answering:
    """Bytes of one answer, as they come in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need: int | None = None
        self._head = 0

    def feed(self, data: bytes) -> bool:
        """Take some bytes; tell whether the answer is whole."""
        self._parts.append(data)
        self._have += len(data)
        if self._need is None:
            joined = b"".join(self._parts)
            end = joined.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._parts, self._head = [joined], end + 4
            length = _LENGTH.search(joined, 0, end)
            if length is None and not joined.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
                raise ConnectionError(f"an answer without a length: {joined[:end]!r}")
            self._need = self._head + (int(length[1]) if length else 0)
        return self._have >= self._need

    def result(self) -> tuple[int, bytes, bool]:
        """Return status, body, and whether the server closes the connection now."""
        joined = b"".join(self._parts)
        closes = _CLOSES.search(joined, 0, self._head) is not None
        return int(joined[9:12]), joined[self._head :], closes


class Client:
    """One connection, one request at a time. A server may close an idle connection; it is then opened anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes, *, timeout: float = 120.0) -> Answer:
        """Send a request and return its answer.

        :param timeout: seconds
        :raises TimeoutError: when it took longer
        """
        deadline = time.monotonic() + timeout
        while True:
            fresh = self._socket is None
            self._socket = self._socket or _connect(self._port)
            began = time.perf_counter()
            answering = _Answering()
            try:
                self._socket.sendall(request)
                while not answering.feed(self._receive(deadline)):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                self.close()
                if fresh:
                    raise
                continue
            except TimeoutError:
                self.close()
                raise
            seconds = time.perf_counter() - began
            status, body, closes = answering.result()
            if closes:
                self.close()
            return Answer(status, body, seconds)

    def _receive(self, deadline: float) -> bytes:
        assert self._socket is not None
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("closed by the server")
        return data

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclasses.dataclass
class Burst:
    """What many clients at once got. ``latencies`` in seconds, ``samples`` some bodies by status."""

    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    latencies: list[float] = dataclasses.field(default_factory=list)
    samples: dict[int, bytes] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


@dataclasses.dataclass
class _Lane:
    socket: socket.socket
    requests: Iterator[bytes]
    answering: _Answering
    sent: float


def drive(port: int, lanes: Sequence[Iterator[bytes]], seconds: float) -> Burst:
    """Send each lane's requests one after the other, all lanes at the same time.

    One process and no threads: sixteen client processes would take the servers' time. They connect a moment apart: of
    connections that come at the same time the worker that wakes first takes nearly all, and its luck would be measured.

    :param seconds: how long new requests are begun; those under way are waited for
    """
    burst = Burst()
    with selectors.DefaultSelector() as selector:
        connected = []
        for requests in lanes:
            connected.append(_Lane(_connect(port), requests, _Answering(), 0.0))
            time.sleep(_APART_S)
        began = time.perf_counter()
        for lane in connected:
            if _next(lane):
                selector.register(lane.socket, selectors.EVENT_READ, lane)
        while selector.get_map():
            for key, _ in selector.select(120.0) or _stuck():
                lane = key.data
                data = lane.socket.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("the server closed a connection under load")
                if not lane.answering.feed(data):
                    continue
                now = time.perf_counter()
                status, body, closes = lane.answering.result()
                burst.statuses[status] += 1
                burst.latencies.append(now - lane.sent)
                if status >= 300:
                    burst.samples.setdefault(status, body[:500])
                if closes:
                    selector.unregister(lane.socket)
                    lane.socket.close()
                    lane.socket = _connect(port)
                    selector.register(lane.socket, selectors.EVENT_READ, lane)
                if now - began >= seconds or not _next(lane):
                    selector.unregister(lane.socket)
                    lane.socket.close()
        burst.seconds = time.perf_counter() - began
    return burst


def _next(lane: _Lane) -> bool:
    request = next(lane.requests, None)
    if request is None:
        return False
    lane.answering = _Answering()
    lane.sent = time.perf_counter()
    lane.socket.sendall(request)
    return True


def _stuck() -> list[tuple[selectors.SelectorKey, int]]:
    raise TimeoutError("no client got an answer for two minutes")


def _connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=120.0)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
