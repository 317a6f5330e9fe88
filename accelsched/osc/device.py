# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel device list|disable|enable``: the devices of all hosts, and which may take something new."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

_COLUMNS = ("UUID", "Name", "Host", "Status", "Used", "Servers", "Fault")


class ListDevices(command.Lister):
    """List the devices of hosts."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--host", metavar="<host>", help="Only those of one host")
        parser.add_argument(
            "--status", choices=["enabled", "disabled", "unhealthy", "lost"], help="Only those of one status"
        )
        parser.epilog = "Example: openstack accel device list --status lost"
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        """Ask the service, page by page."""
        manager: Any = self.app.client_manager
        found = every(manager.accelsched, host=parsed_args.host, status=parsed_args.status)
        return _COLUMNS, [row(device) for device in found]


class _ChangeDevices(command.Command):
    """Change devices."""

    disabled: bool
    verb: str

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("device", metavar="<device>", nargs="+", help="Device (name or UUID); repeat for several")
        parser.epilog = f"Example: openstack accel device {self.verb} gpu01_pci_0000_41_00_0"
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Find each device, then have the service change all of them."""
        manager: Any = self.app.client_manager
        client = manager.accelsched
        for device in resolved(client, parsed_args.device):
            client.patch(f"/devices/{device}", json={"disabled": self.disabled})


class DisableDevices(_ChangeDevices):
    """Let nothing new onto devices; servers that have them keep them."""

    disabled = True
    verb = "disable"


class EnableDevices(_ChangeDevices):
    """Let devices take something new again."""

    disabled = False
    verb = "enable"


def every(client: Any, **query: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield the devices of all pages.

    :param client: a keystoneauth adapter of the service
    """
    asked = {name: value for name, value in query.items() if value is not None}
    while True:
        told = client.get("/devices", params=asked).json()
        yield from told["devices"]
        if told["next_marker"] is None:
            return
        asked["marker"] = told["next_marker"]


def resolved(client: Any, wanted: Sequence[str]) -> list[str]:
    """Return the UUIDs of devices given by name or UUID.

    :raises osc_lib.exceptions.CommandError: there is no device of a name
    """
    named = {one for one in wanted if not _is_uuid(one)}
    by_name = {device["name"]: device["uuid"] for device in every(client)} if named else {}
    if missing := sorted(named - by_name.keys()):
        raise exceptions.CommandError(f"There is no device {', '.join(missing)}")
    return [by_name.get(one, one) for one in wanted]


def row(device: Mapping[str, Any]) -> Sequence[str]:
    """Return a device's row of the list."""
    used = [f"{name} {stock['used']}/{stock['total']}" for name, stock in sorted(device["inventories"].items())]
    return (
        device["uuid"],
        device["name"],
        device["host"],
        device["status"],
        ", ".join(used),
        ", ".join(device["consumers"]),
        device.get("fault") or "",
    )


def _is_uuid(text: str) -> bool:
    try:
        return bool(uuid.UUID(text))
    except ValueError:
        return False
