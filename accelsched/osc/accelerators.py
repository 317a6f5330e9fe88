# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel server add|remove|list accelerator``: what a server is given while it goes on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from osc_lib.command import command

from accelsched.osc import servers


class AddAccelerator(command.ShowOne):
    """Attach an accelerator to a server: one unit of a resource class, of a device of its host."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        servers.add_argument(parser)
        parser.add_argument("resource_class", metavar="<resource-class>", help="VGPU, PGPU, FPGA or CUSTOM_*")
        for option in ("required", "forbidden"):
            parser.add_argument(
                f"--{option}",
                metavar="<trait>",
                action="append",
                default=[],
                help=f"A trait that is {option} of the device (repeat for several)",
            )
        program = parser.add_mutually_exclusive_group()
        program.add_argument("--function-id", metavar="<uuid>", help="Function that an FPGA is programmed with before")
        program.add_argument(
            "--bitstream-id", metavar="<uuid>", help="Bitstream that an FPGA is programmed with before"
        )
        parser.epilog = (
            "Example: openstack accel server add accelerator --required CUSTOM_VGPU_TYPE_T4_8Q my-server VGPU"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        """Ask the service."""
        manager: Any = self.app.client_manager
        path = _path(manager, parsed_args.server)
        made = manager.accelsched.post(path, json={"accelerator": request_of(parsed_args)}).json()["accelerator"]
        row = _row(made)
        return tuple(row), tuple(row.values())


class RemoveAccelerator(command.Command):
    """Detach an accelerator that was attached to a server; its guest may refuse."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        servers.add_argument(parser)
        parser.add_argument("accelerator", metavar="<accelerator>", help="Accelerator (ID)")
        parser.epilog = "Example: openstack accel server remove accelerator my-server 5d6a..."
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Ask the service."""
        manager: Any = self.app.client_manager
        manager.accelsched.delete(f"{_path(manager, parsed_args.server)}/{parsed_args.accelerator}")


class ListAccelerators(command.Lister):
    """List the accelerators of a server; those without an ID it has by its flavor."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        servers.add_argument(parser)
        parser.epilog = "Example: openstack accel server list accelerator my-server"
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
        """Ask the service."""
        manager: Any = self.app.client_manager
        told = manager.accelsched.get(_path(manager, parsed_args.server)).json()["accelerators"]
        rows = [{**_row(one), "Provider": one["provider_uuid"], "Fault": one.get("fault") or ""} for one in told]
        return ("ID", "State", "Resources", "Provider", "Fault"), (tuple(row.values()) for row in rows)


def request_of(parsed_args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of ``add accelerator`` ask for."""
    asked = {key: getattr(parsed_args, key) for key in ("required", "forbidden", "function_id", "bitstream_id")}
    return {"resource_class": parsed_args.resource_class, **{key: value for key, value in asked.items() if value}}


def _path(manager: Any, named: str) -> str:
    return f"/servers/{servers.find(manager, named)}/accelerators"


def _row(told: Mapping[str, Any]) -> dict[str, Any]:
    resources = ", ".join(f"{name}={amount}" for name, amount in sorted(told["resources"].items()))
    return {"ID": told["id"], "State": told["state"], "Resources": resources}
