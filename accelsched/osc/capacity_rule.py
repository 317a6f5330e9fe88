# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel capacity rule show|set|unset``: how the resource classes of a provider share it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

_RAW_FORMATS = frozenset({"json", "yaml"})


class ShowCapacityRule(command.ShowOne):
    """Show how the resource classes of a provider share it, and what is left of each just now."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_provider(parser)
        parser.epilog = "Example: openstack accel capacity rule show 1f3c..."
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        """Ask the service."""
        manager: Any = self.app.client_manager
        told = manager.accelsched.get(_path(parsed_args.provider)).json()
        return _shown(told, parsed_args.formatter)


class SetCapacityRule(command.ShowOne):
    """Say how the resource classes of a provider share it, in place of what was said before."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_provider(parser)
        rule = parser.add_mutually_exclusive_group(required=True)
        rule.add_argument(
            "--one-type",
            metavar="<class>,<class>...",
            help="One of these classes at a time: the first unit fixes it until the last one goes",
        )
        rule.add_argument(
            "--budget",
            type=int,
            metavar="<amount>",
            help="All units share this budget, in a unit of your choice, e.g. MiB of framebuffer; needs --cost",
        )
        rule.add_argument(
            "--document",
            metavar="<file>",
            help='The rule as JSON, "-" for standard input; the way to give slices with positions',
        )
        parser.add_argument(
            "--cost",
            action="append",
            default=[],
            metavar="<class>=<amount>",
            help="With --budget: what one unit of a class takes of it (repeat for each class)",
        )
        parser.add_argument(
            "--generation",
            type=int,
            metavar="<n>",
            help="The provider's generation that this is based on; the present one unless given",
        )
        parser.epilog = "Example: openstack accel capacity rule set --budget 24576 --cost CUSTOM_Q8=8192 1f3c..."
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        """Set the rule and show what comes of it."""
        manager: Any = self.app.client_manager
        client = manager.accelsched
        path = _path(parsed_args.provider)
        rule = rule_of(parsed_args)
        generation = parsed_args.generation
        if generation is None:
            generation = client.get(path).json()["resource_provider_generation"]
        told = client.put(path, json={"resource_provider_generation": generation, "capacity_rule": rule}).json()
        return _shown(told, parsed_args.formatter)


class UnsetCapacityRule(command.Command):
    """Take the capacity rule of a resource provider away."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_provider(parser)
        parser.epilog = "Example: openstack accel capacity rule unset 1f3c..."
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Ask the service."""
        manager: Any = self.app.client_manager
        manager.accelsched.delete(_path(parsed_args.provider))


def rule_of(parsed_args: argparse.Namespace) -> dict[str, Any]:
    """Return the rule that the options of ``set`` give.

    :raises osc_lib.exceptions.CommandError: they make no rule
    """
    if (parsed_args.budget is None) != (not parsed_args.cost):
        raise exceptions.CommandError("--budget and --cost go together")
    if parsed_args.one_type is not None:
        return {"type": "one_type", "resource_classes": parsed_args.one_type.split(",")}
    if parsed_args.budget is not None:
        return {"type": "budget", "budget": parsed_args.budget, "costs": dict(map(_cost, parsed_args.cost))}
    try:
        text = sys.stdin.read() if parsed_args.document == "-" else Path(parsed_args.document).read_text("utf-8")
        rule = json.loads(text)
    except (OSError, ValueError) as exc:
        raise exceptions.CommandError(f"--document {parsed_args.document}: {exc}") from exc
    if not isinstance(rule, dict):
        raise exceptions.CommandError(f"--document {parsed_args.document}: not a JSON object")
    # What show -f json prints can be edited and set again.
    inner: dict[str, Any] = rule.get("capacity_rule", rule)
    return inner


def _cost(text: str) -> tuple[str, int]:
    name, _, amount = text.partition("=")
    try:
        return name, int(amount)
    except ValueError:
        raise exceptions.CommandError(f"--cost {text}: not of the form <class>=<amount>") from None


def _add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("provider", metavar="<provider>", help="Resource provider (UUID)")


def _path(provider: str) -> str:
    return f"/resource_providers/{provider}/capacity_rule"


def _shown(told: Mapping[str, Any], formatter: str) -> tuple[Sequence[str], Sequence[Any]]:
    """Return columns and values: for reading, or as the service said it for -f json and yaml."""
    if formatter in _RAW_FORMATS:
        return tuple(told), tuple(told.values())
    rows = readable(told)
    return tuple(rows), tuple(rows.values())


def readable(told: Mapping[str, Any]) -> dict[str, str]:
    """Return a rule as texts to be read, by what they tell.

    :param told: of ``GET /v1/resource_providers/{uuid}/capacity_rule``
    """
    rule = told["capacity_rule"]
    rows = {"generation": str(told["resource_provider_generation"]), "rule": "(none)"}
    if rule is None:
        return rows
    match rule["type"]:
        case "one_type":
            rows["rule"] = "one type at a time: " + ", ".join(rule["resource_classes"])
        case "budget":
            costs = ", ".join(f"{name} {cost}" for name, cost in rule["costs"].items())
            rows["rule"] = f"sizes share a budget of {rule['budget']}: {costs}"
        case _:
            rows["rule"] = "\n".join(
                [f"{rule['compute_slices']} compute and {rule['memory_slices']} memory slices"]
                + [_profile(name, profile) for name, profile in rule["profiles"].items()]
            )
    rows["at most just now"] = "\n".join(
        f"{name}: {'no limit' if most is None else most}" for name, most in told["ceilings"].items()
    )
    if told["positions"]:
        rows["positions"] = "\n".join(
            f"{seat['start']}: {seat['resource_class']} of {seat['consumer_uuid']}" for seat in told["positions"]
        )
    return rows


def _profile(name: str, profile: Mapping[str, Any]) -> str:
    starts = ",".join(map(str, profile["starts"]))
    return f"{name}: {profile['compute_slices']} compute, memory {{{starts}}}:{profile['memory_slices']}"
