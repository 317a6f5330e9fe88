# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI devices that a flavor asks for by alias, in the extra spec ``pci_passthrough:alias=NAME:COUNT,NAME:COUNT``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from accelsched import errors
from accelsched.conf.pci import Alias
from accelsched.placement.candidates import RequestGroup
from accelsched.scheduler.numa.request import Affinity

EXTRA_SPEC = "pci_passthrough:alias"
_ASKED = re.compile(r"(?P<name>[^:,\s]{1,256}):(?P<count>[0-9]{1,4})")
_MOST = 64


@dataclasses.dataclass(frozen=True)
class PciRequest:
    """Some devices that are alike. What the alias meant when the server was asked for holds."""

    name: str
    count: int
    resource_class: str
    traits: Sequence[str]
    affinity: Affinity


def asked(extra_specs: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return the aliases that a flavor names, and how many devices of each.

    :raises accelsched.errors.InvalidError: when the extra spec is malformed
    """
    found = []
    for part in filter(None, (part.strip() for part in extra_specs.get(EXTRA_SPEC, "").split(","))):
        match = _ASKED.fullmatch(part)
        if match is None or not 1 <= int(match["count"]) <= _MOST:
            raise errors.InvalidError(
                f"extra spec {EXTRA_SPEC}: {part[:50]!r} is not NAME:COUNT with a count from 1 to {_MOST}"
            )
        found.append((match["name"], int(match["count"])))
    if sum(count for _, count in found) > _MOST:
        raise errors.InvalidError(f"extra spec {EXTRA_SPEC}: more than {_MOST} devices in all")
    return found


def parse(extra_specs: Mapping[str, str], aliases: Mapping[str, Alias]) -> tuple[PciRequest, ...]:
    """Return the devices that a flavor asks for by alias.

    :raises accelsched.errors.InvalidError: when the extra spec is malformed or names an alias that there is not
    """
    requests = []
    for name, count in asked(extra_specs):
        alias = aliases.get(name)
        if alias is None:
            raise errors.InvalidError(
                f"extra spec {EXTRA_SPEC}: there is no alias {name}; an operator defines it in [pci] alias"
            )
        affinity = cast("Affinity", alias.numa_policy)
        requests.append(PciRequest(name, count, alias.resource_class, alias.traits, affinity))
    return tuple(requests)


def groups(requests: Sequence[PciRequest]) -> Iterator[tuple[PciRequest, RequestGroup]]:
    """Yield a group of a query for each device."""
    for number, request in enumerate(requests):
        for device in range(request.count):
            yield (
                request,
                RequestGroup(
                    suffix=f"pci_{number}_{device}",
                    resources={request.resource_class: 1},
                    required=tuple(frozenset({trait}) for trait in sorted(request.traits)),
                ),
            )
