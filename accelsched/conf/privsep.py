# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[privsep]``: the helper that does things as root for an agent that is not; oslo.privsep reads the same group."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "privsep"

THREADS = 32  # a call that hangs, or cleans a device for half an hour, keeps one busy

OPTS = [
    cfg.StrOpt(
        "helper_command",
        help="Starts the helper of an agent that another user than root starts; --privsep_context and "
        "--privsep_sock_path follow as arguments. By default sudo -n and the privsep-helper beside the agent, with the "
        "agent's --config-file options. Not used by an agent that root starts.",
    ),
    cfg.IntOpt("thread_pool_size", default=THREADS, min=2, help="Operations that the helper carries out at a time."),
]
