# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel placement simulate``: where servers would go, and what would be left."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from osc_lib.cli import parseractions
from osc_lib.command import command

from accelsched.osc.explanation import stage_line, would_fit

_RAW_FORMATS = frozenset({"json", "yaml"})


class SimulatePlacement(command.ShowOne):
    """Show where servers would go and what would be left; nothing is placed."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--flavor", metavar="<flavor>", required=True, help="Flavor (name or ID)")
        parser.add_argument("--count", metavar="<n>", type=int, default=1, help="How many servers (default: 1)")
        parser.add_argument("--image", metavar="<image>", help="Image (name or ID); none is looked at unless given")
        parser.add_argument(
            "--availability-zone",
            metavar="<zone>",
            help="ZONE, or ZONE:HOST:NODE to name the host, as for openstack server create",
        )
        parser.add_argument(
            "--hint",
            metavar="<key=value>",
            action=parseractions.KeyValueAppendAction,
            help="Scheduler hint (repeat for several, the same key too)",
        )
        parser.add_argument(
            "--property",
            metavar="<key=value>",
            action=parseractions.KeyValueAction,
            help="Extra spec in place of the flavor's, or beside them (repeat for several)",
        )
        parser.add_argument("--project", metavar="<project-id>", help="Whose servers (ID; default: yours)")
        parser.add_argument(
            "--seed",
            metavar="<text>",
            help="Fixes which of several hosts that score the same comes first; the answer names the one that was used",
        )
        parser.epilog = (
            "Example: openstack accel placement simulate --flavor gpu.large --count 40 --property resources:VGPU=2"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        """Ask the service; render for reading, or hand out as it is for -f json and yaml."""
        manager: Any = self.app.client_manager
        flavor = manager.compute.find_flavor(parsed_args.flavor, ignore_missing=False)
        image = manager.image.find_image(parsed_args.image, ignore_missing=False) if parsed_args.image else None
        body = request_of(parsed_args, flavor.id, image.id if image else None)
        told = manager.accelsched.post("/placements:simulate", json=body).json()["placement"]
        if parsed_args.formatter in _RAW_FORMATS:
            return tuple(told), tuple(told.values())
        rows = readable(told)
        return tuple(rows), tuple(rows.values())


def request_of(parsed_args: argparse.Namespace, flavor_id: str, image_id: str | None) -> dict[str, Any]:
    """Return the body that asks for what the options say."""
    # A hint that is given once is one value, as openstack server create sends it.
    hints = {key: values[0] if len(values) == 1 else values for key, values in (parsed_args.hint or {}).items()}
    body = {
        "flavor": flavor_id,
        "count": parsed_args.count,
        "image": image_id,
        "availability_zone": parsed_args.availability_zone,
        "hints": hints,
        "properties": parsed_args.property or {},
        "project_id": parsed_args.project,
        "seed": parsed_args.seed,
    }
    return {key: value for key, value in body.items() if value is not None and value != {}}


def readable(told: Mapping[str, Any]) -> dict[str, str]:
    """Return an answer as texts to be read, by what they tell.

    :param told: ``placement`` of ``POST /v1/placements:simulate``
    """
    explanation = told["explanation"]
    rows = {
        "servers placed": f"{told['placed']} of {told['count']}",
        "hosts": "\n".join(line for host in told["hosts"] for line in _host(host)) or "(none)",
        "free": "\n".join(
            f"{name}: {room['free_after']} of {room['capacity']}, {room['free_before']} before"
            for name, room in told["free"].items()
        ),
        "hosts looked at": str(explanation["hosts"]),
        "hosts left": "\n".join(stage_line(stage) for stage in explanation["stages"]) or "(no stage ran)",
        "seed": told["seed"],
    }
    if fitting := would_fit(explanation):
        rows["would fit"] = fitting
    if explanation["failure"]:
        rows["failure"] = explanation["failure"]
    return rows


def _host(host: Mapping[str, Any]) -> list[str]:
    """Return a line for a host and one for each of its devices."""
    lines = [f"{host['host']}: {host['servers']}"]
    for device in host["devices"]:
        amounts = ", ".join(f"{amount} {name}" for name, amount in device["resources"].items())
        lines.append(f"  {device['provider_name']}: {amounts}")
    return lines
