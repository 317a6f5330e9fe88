# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``openstack accel server explain``: why a server went where it went, or nowhere."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from osc_lib.command import command

from accelsched.osc import servers

_RAW_FORMATS = frozenset({"json", "yaml"})
_TOP = 5


class ExplainServer(command.ShowOne):
    """Show why a server was placed where it is, or why it found no place."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the command's parser."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.epilog = "Example: openstack accel server explain my-server"
        servers.add_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[Any]]:
        """Ask the service; render for reading, or hand out as it is for -f json and yaml."""
        manager: Any = self.app.client_manager
        server_id = servers.find(manager, parsed_args.server)
        response = manager.accelsched.get(f"/servers/{server_id}/explanation")
        told = response.json()["explanation"]
        if parsed_args.formatter in _RAW_FORMATS:
            return tuple(told), tuple(told.values())
        rows = readable(told)
        return tuple(rows), tuple(rows.values())


def readable(told: Mapping[str, Any]) -> dict[str, str]:
    """Return an explanation as texts to be read, by what they tell.

    :param told: of ``GET /v1/servers/{id}/explanation``
    """
    rows = {
        "server": f"{told['server']['name']} ({told['server']['id']})",
        "state": told["state"],
        "asked": "\n".join(_group(group) for group in told["asked"]["groups"]),
        "hosts looked at": str(told["hosts"]),
        "hosts left": "\n".join(stage_line(stage) for stage in told["stages"]) or "(no stage ran)",
        "best hosts": "\n".join(_host(host) for host in told["top"][:_TOP]) or "(none)",
    }
    selection = told["selection"]
    if selection is None:
        rows["chosen host"] = "(none)"
    else:
        rows["chosen host"] = _host(selection)
        rows["chosen devices"] = "\n".join(_device(device) for device in selection["devices"])
        if "numa" in selection:
            rows["chosen NUMA nodes"] = "\n".join(_numa_node(node) for node in selection["numa"])
        compared = [
            f"{resource}: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            for resource, scores in selection.get("device_scores", {}).items()
        ]
        if compared:
            rows["devices compared"] = "\n".join(compared)
    if told["count"] > 1:
        rows["servers placed"] = f"{told['placed']} of {told['count']} in this decision"
    if told["attempts"] > 1:
        rows["decision"] = f"{told['attempt']} of {told['attempts']}"
    if fitting := would_fit(told):
        rows["would fit"] = fitting
    failure = told["fault"] or (told["failure"] if selection is None else None)
    if failure:
        rows["failure"] = failure
    return rows


def stage_line(stage: Mapping[str, Any]) -> str:
    """Return what one stage of a decision left, as a line."""
    line = f"{stage['hosts_left']} after {stage['name']}"
    if stage["hosts_removed"]:
        line += f", which removed {stage['hosts_removed']}: {stage['reason']}"
        if stage.get("most_free_on"):
            line += f", on {stage['most_free_on']}"
    return line


def would_fit(told: Mapping[str, Any]) -> str:
    """Return what the request would have had to do without to find a host, a line for each way; empty when it did."""
    relaxed = told.get("relaxed")  # decisions of older releases say nothing
    if not relaxed:
        return ""
    lines = [" and ".join(map(_relaxation, ways)) for ways in relaxed["sets"]]
    if not lines:
        lines = (
            ["(with nothing of up to three things given up)"] if relaxed["complete"] else ["(not found out in time)"]
        )
    elif not relaxed["complete"]:
        lines.append("(perhaps with less: the search was cut short)")
    return "\n".join(lines)


def _relaxation(one: Mapping[str, Any]) -> str:
    return f"without {one['what']}" if one["asked"] is None else f"{one['what']} {one['asked']} -> {one['enough']}"


def _group(group: Mapping[str, Any]) -> str:
    parts = [f"{amount} {resource}" for resource, amount in group["resources"].items()]
    parts += [f"with {' or '.join(any_of)}" for any_of in group["required"]]
    parts += [f"without {trait}" for trait in group["forbidden"]]
    name = f"group {group['group']}: " if group["group"] else ""
    return name + (", ".join(parts) or "nothing")


def _host(host: Mapping[str, Any]) -> str:
    parts = [f"{name} {part['weighted']:+.3f}" for name, part in host["weighers"].items()]
    return f"{host['host']}: {host['score']:.3f} ({', '.join(parts)})"


def _numa_node(node: Mapping[str, Any]) -> str:
    parts = [f"{node['memory_mb']} MiB" + (f" in pages of {node['page_kb']} KiB" if node["page_kb"] else "")]
    if node["shared_cpus"]:
        parts.append(f"CPUs {', '.join(map(str, node['shared_cpus']))} shared")
    if node["pins"]:
        parts.append("CPUs pinned " + ", ".join(f"{cpu} to {pin}" for cpu, pin in node["pins"].items()))
    return f"node {node['node']}: {'; '.join(parts)}"


def _device(device: Mapping[str, Any]) -> str:
    taken = ", ".join(f"{amount} {resource}" for resource, amount in device["resources"].items())
    return f"{device['provider_name']}: {taken}"
