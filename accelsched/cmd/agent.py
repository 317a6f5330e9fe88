# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-agent``: the compute agent as a process of its own; ``accelsched-agent devices`` explains a host."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from oslo_config import cfg

from accelsched import errors, rpc
from accelsched.agent.manager import Agent
from accelsched.agent.privileged import context
from accelsched.cmd import agent_devices, process

PROG = "accelsched-agent"

_OPTIONS = [
    cfg.IntOpt(
        "simulate",
        default=0,
        min=0,
        max=100_000,
        metavar="N",
        help="Stand for N simulated hosts, named [agent] host and a number, instead of for this one. The command "
        "accelsched-agent devices --help is another one: what this host's devices can be used for.",
    )
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["devices"]:
        return agent_devices.main(f"{PROG} devices", arguments[1:])
    example = f"{PROG} --config-file /etc/accelsched/accelsched.conf"
    try:
        conf = process.read_options(PROG, arguments, example=example, extra=_OPTIONS)
        if not conf.simulate:
            context.start(conf)
    except errors.ConfigurationError as exc:
        return process.fail(PROG, str(exc))
    status = process.run(PROG, lambda: [Agent(conf, rpc.transport(conf), simulate=conf.simulate)])
    # A thread may wait for a message broker that does not answer; nothing it does is lost, and nobody waits for it.
    sys.stdout.flush()
    logging.shutdown()
    os._exit(status)
