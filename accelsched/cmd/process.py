# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the long-running processes share: options, logs, signals, and parts that start and stop in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Any, Protocol

from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_log import log

from accelsched import conf as options
from accelsched import errors

LOG = log.getLogger(__name__)

_LOOK_FOR_SIGNALS_S = 0.5

QUIET = ("alembic=WARNING", "matplotlib=WARNING", "waitress=WARNING")


class Part(Protocol):
    """Something that a process runs."""

    def start(self) -> None:
        """Begin; return at once."""

    def stop(self) -> object:
        """End, having finished or written down what is under way. Called also for a part that never started."""


class Options(cfg.ConfigOpts):
    """Options whose ``--help`` ends with an example."""

    def __init__(self, example: str) -> None:
        super().__init__()
        self._example = example

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Read the command line and the configuration files."""
        super().__call__(*args, **{**kwargs, "epilog": f"Example: {self._example}"})


def read_options(
    prog: str,
    argv: Sequence[str] | None,
    *,
    example: str,
    extra: Iterable[cfg.Opt] = (),
    prepare: Callable[[cfg.ConfigOpts], None] | None = None,
) -> cfg.ConfigOpts:
    """Return the options of a command, read and checked, with logging set up.

    :param extra: command-line options of this command alone
    :param prepare: lets those override others before all are checked
    :raises accelsched.errors.ConfigurationError: with one line that names the option
    """
    conf = Options(example)
    conf.register_cli_opts(list(extra))
    options.register(conf)
    options.parse(conf, sys.argv[1:] if argv is None else argv, prog, metadata.version("accelsched"), prepare)
    log.set_defaults(default_log_levels=[*log.get_default_log_levels(), *QUIET])
    log.setup(conf, "accelsched")
    return conf


class SignalToStop:
    """SIGTERM or SIGINT, once it came. Made in the process's first thread, which alone runs handlers of signals."""

    def __init__(self) -> None:
        self._came = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._came.set())

    def wait(self) -> None:
        """Wait for it, in the first thread."""
        # The system may hand a signal to any other thread; that does not wake this one, whose handler runs when it
        # wakes.
        while not self._came.wait(_LOOK_FOR_SIGNALS_S):
            pass


def run(prog: str, build: Callable[[], Sequence[Part]]) -> int:
    """Build the parts, start them in order, wait for SIGTERM or SIGINT, stop them in the opposite order.

    :returns: exit status: 0 after a clean stop, 2 when an option is wrong or a service it names does not answer
    """
    told = SignalToStop()
    started: list[Part] = []
    try:
        for part in build():
            started.append(part)
            part.start()
        LOG.info("%s runs", prog)
        told.wait()
    except errors.ConfigurationError as exc:
        return fail(prog, str(exc))
    except db_exception.DBConnectionError as exc:
        return fail(prog, f"[database] connection: the database does not answer: {str(exc).splitlines()[0]}")
    finally:
        for part in reversed(started):
            part.stop()
    LOG.info("%s stopped", prog)
    return 0


def fail(prog: str, line: str) -> int:
    """Say in one line why the command cannot run; return its exit status."""
    print(f"{prog}: {line}", file=sys.stderr)
    return 2
