# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel server programming list``: how far the programming of a server's FPGA regions is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from osc_lib.command import command

from accelsched.osc import servers

_COLUMNS = {
    "State": "state",
    "Percent": "percent",
    "Wanted": "wanted",
    "Image": "image_id",
    "Function": "function_id",
    "Region": "provider_uuid",
    "Started": "started_at",
    "Finished": "finished_at",
}


class ListProgramming(command.Lister):
    """List how the FPGA regions of a server were programmed, or how far that is, the newest first."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        servers.add_argument(parser)
        parser.epilog = "Example: openstack accel server programming list my-server"
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
        """Ask the service."""
        manager: Any = self.app.client_manager
        server_id = servers.find(manager, parsed_args.server)
        jobs = manager.accelsched.get(f"/servers/{server_id}/programming").json()["programming"]
        rows = ([*(job[key] for key in _COLUMNS.values()), (job["fault"] or {}).get("message", "")] for job in jobs)
        return (*_COLUMNS, "Fault"), rows
