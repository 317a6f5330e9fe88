# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[quota]``: how much a project may have unless it has a limit of its own, by Nova's names; -1 is no limit."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "quota"


def _limit(name: str, default: int, what: str) -> cfg.IntOpt:
    return cfg.IntOpt(name, default=default, min=-1, max=2**31 - 1, help=f"{what} -1: no limit.")


OPTS = [
    _limit("instances", -1, "Servers of a project."),
    _limit("cores", -1, "VCPUs of a project's servers together."),
    _limit("ram", -1, "MiB of memory of a project's servers together."),
    _limit("metadata_items", 128, "Metadata items of a server. The API takes 1024 at a time at most."),
    _limit("key_pairs", 100, "Key pairs of a user."),
    _limit("server_groups", -1, "Server groups of a project."),
    _limit("server_group_members", -1, "Servers in a server group."),
    _limit("accelerator_requests", 128, "Accelerator requests of a project that are bound to nothing. Not of Nova's."),
]
