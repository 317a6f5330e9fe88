# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel agent list``: the agents of all hosts, and which are behind."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from osc_lib.command import command

_COLUMNS = ("Host", "Agent", "State", "RPC Version", "Outdated", "Simulated", "Last Seen")
_FIELDS = ("host", "agent", "state", "rpc_version", "outdated", "simulated", "last_seen_at")


class ListAgents(command.Lister):
    """List the agents of hosts, with the version that each understands."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--host", metavar="<host>", help="Only that of one host")
        parser.add_argument("--outdated", action="store_true", help="Only those of an earlier version than the API's")
        parser.epilog = "Example: openstack accel agent list --outdated"
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        """Ask the service, page by page."""
        manager: Any = self.app.client_manager
        found = every(manager.accelsched, host=parsed_args.host)
        shown = [agent for agent in found if agent["outdated"] or not parsed_args.outdated]
        return _COLUMNS, [[agent[field] for field in _FIELDS] for agent in shown]


def every(client: Any, host: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield the agents of all pages.

    :param client: a keystoneauth adapter of the service
    """
    asked = {} if host is None else {"host": host}
    while True:
        told = client.get("/agents", params=asked).json()
        yield from told["agents"]
        if told["next_marker"] is None:
            return
        asked["marker"] = told["next_marker"]
