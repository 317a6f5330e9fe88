# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a request went where it went, in words and numbers that stay true after the fleet has moved on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from accelsched import names
from accelsched.placement.candidates import CandidateQuery, Narrowed
from accelsched.placement.picture import Picture


@dataclasses.dataclass(frozen=True)
class HostScore:
    """A host's score and each weigher's part in it: raw, normalised (0..1), weighted (times its multiplier)."""

    host: str
    score: float
    weighers: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class SelectionScore:
    """How the chosen host scored, and how its devices compared: score by provider name, by what was asked."""

    host: HostScore
    devices: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class FilterResult:
    """What one filter did."""

    name: str
    left: int
    removed: int
    reason: str
    most_free_on: str | None = None  # who came closest, where the reason has numbers


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One decision, as ``GET /v1/servers/{id}/explanation`` shows it."""

    asked: Mapping[str, Any]
    count: int
    placed: int
    hosts: int
    stages: tuple[Mapping[str, Any], ...]
    top: tuple[HostScore, ...]
    failure: str | None
    relaxed: Mapping[str, Any] | None = None  # of a failure: what to do without

    @classmethod
    def begin(
        cls,
        picture: Picture,
        query: CandidateQuery,
        count: int,
        hosts: int,
        narrowed: Narrowed,
        filtered: Sequence[FilterResult],
        top: Sequence[HostScore],
    ) -> Explanation:
        """Put together what is known once the hosts are ranked."""
        stages: list[dict[str, Any]] = []
        for stage in narrowed.stages:
            entry: dict[str, Any] = {
                "kind": "candidates",
                "name": stage.what,
                "hosts_left": stage.left,
                "hosts_removed": stage.removed,
            }
            if stage.asked is not None:
                on = None if stage.most_free_on is None else picture.name[stage.most_free_on]
                entry |= {"asked": stage.asked, "most_free": stage.most_free, "most_free_on": on}
                free = f"most free {stage.most_free}" if on else "nobody left has any"
                entry["reason"] = f"asked {stage.asked}, {free}"
            else:
                entry["reason"] = stage.why
            stages.append(entry)
        stages += [
            {
                "kind": "filter",
                "name": result.name,
                "hosts_left": result.left,
                "hosts_removed": result.removed,
                "reason": result.reason,
                **({"most_free_on": result.most_free_on} if result.most_free_on else {}),
            }
            for result in filtered
        ]
        asked = {
            "groups": [
                {
                    "group": group.suffix,
                    "resources": dict(group.resources),
                    "required": [sorted(any_of) for any_of in group.required],
                    "forbidden": sorted(group.forbidden),
                }
                for group in query.groups
            ],
            "group_policy": "isolate" if query.isolate else "none",
        }
        return cls(asked, count, 0, hosts, tuple(stages), tuple(top), None)

    def finish(self, placed: int, exhausted: int) -> Explanation:
        """Add how it ended.

        :param exhausted: hosts that passed everything but could not take all parts together, or no more of them
        """
        failure = None
        if placed < self.count:
            failure = self._failure(placed, exhausted)
        return dataclasses.replace(self, placed=placed, failure=failure)

    def would_fit(self, relaxed: Mapping[str, Any], in_words: str) -> Explanation:
        """Add what the request would have had to do without to find a host.

        :param in_words: the same as one sentence for the failure; empty when there is nothing to say
        """
        return dataclasses.replace(self, relaxed=relaxed, failure=" ".join(filter(None, [self.failure, in_words])))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        # Not dataclasses.asdict: it copies all the numbers, for a fifteenth of what a scheduler does.
        return {**vars(self), "top": [vars(score) for score in self.top]}

    def _failure(self, placed: int, exhausted: int) -> str:
        if self.hosts == 0:
            return "No valid host was found. No host has reported; is an accelsched-agent running?"
        parts = [
            f"{stage['name']} removed {stage['hosts_removed']} ({stage['reason']})"
            for stage in self.stages
            if stage["hosts_removed"]
        ]
        if exhausted:
            parts.append(f"{exhausted} could not take {'more' if placed else 'all parts together'}")
        looked = f"{self.hosts} host{'s' if self.hosts != 1 else ''} looked at"
        found = f" Only {placed} of {self.count} servers fit." if placed else ""
        return f"No valid host was found.{found} {looked}: {'; '.join(parts)}."


def without_hosts(told: Mapping[str, Any], project_id: str) -> dict[str, Any]:
    """Return an explanation as its owner may read it: hosts and devices told apart, but not by name.

    :param told: :meth:`Explanation.to_dict`, with ``selection`` (host, devices, device_scores) or None
    :param project_id: the owner's; different projects are shown different aliases, as with Nova's ``hostId``
    """

    def alias(name: str) -> str:
        return names.host_alias(project_id, name)

    stages = [{key: value for key, value in stage.items() if key != "most_free_on"} for stage in told["stages"]]
    top = [{**host, "host": alias(host["host"])} for host in told["top"]]
    selection = told["selection"]
    if selection is not None:
        selection = {
            **{key: value for key, value in selection.items() if key != "numa"},
            "host": alias(selection["host"]),
            "devices": [{**device, "provider_name": alias(device["provider_name"])} for device in selection["devices"]],
            "device_scores": {
                what: {alias(name): score for name, score in scores.items()}
                for what, scores in selection["device_scores"].items()
            },
        }
    return {**told, "stages": stages, "top": top, "selection": selection}
