# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs inside the lab's machine: carries out the commands that clients on the outer machine send.

A command ends with its connection: when the client goes, the command's process group is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import pty
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import IO

from labvm import frames

_CHUNK = 1 << 16


def main() -> None:
    """Serve until the machine is switched off. Arguments: address to listen on, port, file with the token."""
    address, port, token_file = sys.argv[1:]
    token = Path(token_file).read_text().strip()
    with socket.create_server((address, int(port)), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, token), daemon=True).start()


def _serve(connection: socket.socket, token: str) -> None:
    with connection:
        try:
            kind, payload = frames.receive(connection)
            request: frames.Request = json.loads(payload)
            if kind != frames.REQUEST or not hmac.compare_digest(request["token"], token):
                return
            _run(connection, request)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as exc:
            print(f"lab: a client's command was dropped: {exc!r}", flush=True)


class _Command:
    """A running command: on three pipes, or on a terminal of its own."""

    def __init__(self, request: frames.Request) -> None:
        self._terminal: FileIO | None = None
        argv, stdio = request["argv"], [subprocess.PIPE] * 3
        if request["terminal"] is not None:
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *request["terminal"], 0, 0))
            self._terminal = FileIO(ours, "r+")
            argv, stdio = ["setsid", "--ctty", *argv], [theirs] * 3
        self.process = subprocess.Popen(
            argv,
            bufsize=0,
            cwd=request["cwd"],
            env={**os.environ, **request["env"]},
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            start_new_session=self._terminal is None,
        )
        if self._terminal is not None:
            os.close(stdio[0])
        self.ended = os.pidfd_open(self.process.pid)  # readable from the command's end on
        self.outputs: dict[IO[bytes], bytes] = {}  # kind of frame by file
        for file, kind in (
            (self._terminal, frames.OUTPUT),
            (self.process.stdout, frames.OUTPUT),
            (self.process.stderr, frames.ERROR),
        ):
            if file is not None:
                os.set_blocking(file.fileno(), False)
                self.outputs[file] = kind

    def feed(self, data: bytes) -> None:
        """Write to the command's standard input; no data: close it. A command that reads no more is not disturbed.

        What the command leaves running in the background may hold its pipes, full and unread: nothing waits for that.
        """
        stdin = self._terminal or self.process.stdin
        assert stdin is not None
        if stdin.closed:
            return
        try:
            rest = memoryview(data)
            while rest:
                if self.ended in select.select([self.ended], [stdin], [])[0]:
                    return
                rest = rest[stdin.write(rest) or 0 :]
        except BrokenPipeError:
            data = b""
        if not data and self._terminal is None:
            stdin.close()

    def kill(self) -> None:
        """Kill the command's process group unless the command has ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close everything that is open here of the command."""
        os.close(self.ended)
        for file in (self.process.stdin, *self.outputs):
            if file is not None:
                file.close()


def _run(connection: socket.socket, request: frames.Request) -> None:
    try:
        command = _Command(request)
    except OSError as exc:
        frames.send(connection, frames.ERROR, f"{request['argv'][0]}: {exc.strerror}\n".encode())
        frames.send(connection, frames.EXIT, b"127")
        _take_input(connection, lambda _: None)
        return
    feeder = threading.Thread(target=_feed, args=(connection, command), daemon=True)
    feeder.start()
    try:
        _forward_outputs(connection, command)
        status = command.process.wait()
        frames.send(connection, frames.EXIT, str(status if status >= 0 else 128 - status).encode())
        feeder.join()  # the client goes when it has the status; until then it may still be sending
    finally:
        command.kill()
        with contextlib.suppress(OSError):  # the client has gone already
            connection.shutdown(socket.SHUT_RDWR)
        feeder.join()
        command.process.wait()
        command.close()


def _feed(connection: socket.socket, command: _Command) -> None:
    """Pass the client's input on until the client has gone; without its client, the command is killed."""
    _take_input(connection, command.feed)
    command.kill()


def _take_input(connection: socket.socket, take: Callable[[bytes], None]) -> None:
    """Receive input until the client has gone: a connection closed with input unread would take the answer with it."""
    with contextlib.suppress(OSError, EOFError, ValueError):
        while True:
            kind, payload = frames.receive(connection)
            if kind == frames.INPUT:
                take(payload)


def _forward_outputs(connection: socket.socket, command: _Command) -> None:
    """Send what the command writes until it has ended.

    What it leaves running in the background may hold its pipes open, so their end cannot be waited for.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(command.ended, selectors.EVENT_READ)
        for file in command.outputs:
            selector.register(file, selectors.EVENT_READ)
        while command.ended not in (ready := [key.fileobj for key, _ in selector.select()]):
            for file in command.outputs:
                if file in ready and not _forward(connection, file, command.outputs[file]):
                    selector.unregister(file)
    for file, kind in command.outputs.items():
        while _forward(connection, file, kind):
            pass


def _forward(connection: socket.socket, file: IO[bytes], kind: bytes) -> bool:
    """Send what there is to read; False when there is nothing, or nothing any more."""
    try:
        data = file.read(_CHUNK)
    except OSError:  # a terminal whose other end was closed
        return False
    if data:
        frames.send(connection, kind, data)
    return bool(data)


if __name__ == "__main__":
    main()
