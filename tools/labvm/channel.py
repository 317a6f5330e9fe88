# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Commands in the lab's machine, given from the outer one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from labvm import frames


class ChannelError(Exception):
    """The machine did not answer, or stopped answering before the command's exit status came."""


class CommandError(Exception):
    """A command that had to work did not."""


@dataclass(frozen=True)
class Channel:
    """The way to a machine's command server. Every command has a connection of its own; any number may run at once."""

    port: int  # on the outer machine's loopback
    token: str

    def call(self, argv: Sequence[str], input_: str = "", timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a command and return what it did, whatever its exit status.

        :param timeout: seconds, after which the command is killed
        :raises ChannelError: when the machine does not answer, or not in time
        """
        parts: dict[bytes, bytearray] = {frames.OUTPUT: bytearray(), frames.ERROR: bytearray()}
        # The whole command's time is watched, not only the time between two frames.
        with self._connect(argv, None, timeout) as connection:
            watchdog = threading.Timer(timeout, connection.shutdown, [socket.SHUT_RDWR])
            watchdog.start()
            # Beside following the command, which may write more than fits in between before it reads, or never read.
            sender = threading.Thread(target=_send_text, args=(connection, input_), daemon=True)
            sender.start()
            try:
                status = _follow(connection, lambda kind, data: parts[kind].extend(data))
            except (ChannelError, OSError) as exc:
                raise ChannelError(f"{shlex.join(argv)}: {exc}; it may have taken longer than {timeout:g} s") from exc
            finally:
                watchdog.cancel()
                with contextlib.suppress(OSError):  # the other side has gone already
                    connection.shutdown(socket.SHUT_RDWR)
                sender.join()
        out, err = (parts[kind].decode(errors="replace") for kind in (frames.OUTPUT, frames.ERROR))
        return subprocess.CompletedProcess(list(argv), status, out, err)

    def check(self, argv: Sequence[str], input_: str = "", timeout: float = 300.0) -> str:
        """Run a command and return its standard output.

        :raises CommandError: with what it said, when its exit status is not 0
        """
        done = self.call(argv, input_, timeout)
        if done.returncode != 0:
            raise CommandError(
                f"{shlex.join(argv)}: exit status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
        return done.stdout

    def attach(self, argv: Sequence[str]) -> int:
        """Run a command with this process's standard input and output, on a terminal if that is one.

        :returns: its exit status
        """
        on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        size = shutil.get_terminal_size()
        with self._connect(argv, [size.lines, size.columns] if on_terminal else None, None) as connection:
            threading.Thread(target=_send_stdin, args=(connection,), daemon=True).start()
            with _raw_terminal() if on_terminal else contextlib.nullcontext():
                return _follow(connection, _write_out)

    def _connect(self, argv: Sequence[str], terminal: list[int] | None, timeout: float | None) -> socket.socket:
        request: frames.Request = {
            "token": self.token,
            "argv": list(argv),
            "env": {"TERM": os.environ.get("TERM", "dumb")},
            "cwd": "/",
            "terminal": terminal,
        }
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
            frames.send(connection, frames.REQUEST, json.dumps(request).encode())
        except OSError as exc:
            raise ChannelError(f"the machine cannot be reached: {exc}") from exc
        return connection


def _follow(connection: socket.socket, output: Callable[[bytes, bytes], object]) -> int:
    try:
        while True:
            kind, payload = frames.receive(connection)
            if kind == frames.EXIT:
                return int(payload)
            output(kind, payload)
    except (OSError, EOFError, ValueError) as exc:
        raise ChannelError(f"no answer from the machine ({exc or type(exc).__name__})") from exc


def _write_out(kind: bytes, data: bytes) -> None:
    stream = sys.stderr if kind == frames.ERROR else sys.stdout
    stream.buffer.write(data)
    stream.flush()


def _send_text(connection: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # the command has ended without reading it all
        if text:
            frames.send(connection, frames.INPUT, text.encode())
        frames.send(connection, frames.INPUT, b"")


def _send_stdin(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the command has ended
        while data := os.read(0, 1 << 16):
            frames.send(connection, frames.INPUT, data)
        frames.send(connection, frames.INPUT, b"")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
