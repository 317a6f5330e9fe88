# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What passes between the lab's command server, inside the machine, and its clients, outside.

A connection runs one command. The client sends a request, both sides then send frames: one byte of kind, four bytes of
length (big endian), the payload.

====  ==============  =====================================================
kind  sent by         payload
====  ==============  =====================================================
r     client, first   the request, JSON (:class:`Request`)
i     client          bytes for standard input; none: end of input
o, e  server          bytes from standard output, standard error
x     server, last    exit status in decimal digits; 128 + N after signal N
====  ==============  =====================================================
"""

from __future__ import annotations

import socket
import struct
from typing import TypedDict

_HEADER = struct.Struct(">cI")
MAX_PAYLOAD = 1 << 20

REQUEST = b"r"
INPUT = b"i"
OUTPUT = b"o"
ERROR = b"e"
EXIT = b"x"


class Request(TypedDict):
    """A command to run as root."""

    token: str  # the machine's secret: whoever has it is root in the machine
    argv: list[str]
    env: dict[str, str]  # added to the server's own
    cwd: str
    terminal: list[int] | None  # rows and columns of a terminal to run on; None: pipes


def send(to: socket.socket, kind: bytes, payload: bytes) -> None:
    """Send one frame, or several when the payload is longer than one may be."""
    for start in range(0, len(payload) or 1, MAX_PAYLOAD):
        part = payload[start : start + MAX_PAYLOAD]
        to.sendall(_HEADER.pack(kind, len(part)) + part)


def receive(source: socket.socket) -> tuple[bytes, bytes]:
    """Return kind and payload of the next frame.

    :raises EOFError: when the other side has gone
    :raises ValueError: when it does not speak this protocol
    """
    kind, length = _HEADER.unpack(_exactly(source, _HEADER.size))
    if length > MAX_PAYLOAD:
        raise ValueError(f"a frame of {length} bytes, more than {MAX_PAYLOAD}")
    return kind, _exactly(source, length)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise EOFError("the connection was closed")
        data += part
    return bytes(data)
