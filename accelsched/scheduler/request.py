# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a create call asks of the scheduler, and how a flavor's extra specs say it.

The syntax is Nova's: ``resources[SUFFIX]:CLASS=AMOUNT``, ``trait[SUFFIX]:NAME=required|forbidden`` and
``group_policy=none|isolate`` in the flavor, ``trait:NAME=required`` in the image.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from accelsched import bitstreams, cpu_topology, errors, names, wire
from accelsched.conf.pci import Alias
from accelsched.placement.candidates import CandidateQuery, RequestGroup
from accelsched.scheduler import pci as pci_devices
from accelsched.scheduler.numa import request as numa_request
from accelsched.scheduler.numa.request import Affinity, NumaRequest
from accelsched.scheduler.pci import PciRequest

HOST_CLASSES = frozenset({"VCPU", "PCPU", "MEMORY_MB", "DISK_GB"})
"""What a host itself gives; every other class is an accelerator's, as far as scheduling is concerned."""

_GROUPED = re.compile(r"^(?P<kind>resources|trait)(?P<suffix>[A-Za-z0-9_-]{0,64}):(?P<name>.+)\Z")
_NAME = re.compile(r"^[A-Z0-9_]{1,255}\Z")
_MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class RequestSpec:
    """One request for one or many servers alike."""

    project_id: str
    flavor: wire.FlavorSpec
    image: wire.ImageSpec | None
    availability_zone: str | None = None
    host: str | None = None  # this host and no other
    hypervisor_hostname: str | None = None
    hints: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    forced: bool = False  # the host was forced by an operator: filters are not asked
    ignore_hosts: Sequence[str] = ()  # hosts that it must not go to
    pci: Sequence[PciRequest] = ()
    host_traits: Sequence[str] = ()  # that the host must have besides
    group_traits: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)  # so too of groups, by suffix
    server: str | None = None  # uuid of the one that is there already and wants another place
    providers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # uuid by request group: this and no other

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RequestSpec:
        """Return the request that :meth:`to_dict` wrote."""
        pci = tuple(PciRequest(**one) for one in data.get("pci", ()))
        listed = {name: tuple(data.get(name, ())) for name in ("ignore_hosts", "host_traits")}
        return cls(**{**data, **listed, "pci": pci})

    @property
    def image_properties(self) -> Mapping[str, str]:
        """Return the image's properties; none without an image."""
        return {} if self.image is None else self.image["properties"]

    def hinted(self, name: str) -> list[str]:
        """Return the values of a hint that may be one or several."""
        value = self.hints.get(name, ())
        return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]

    def query(self) -> CandidateQuery:
        """Return the resources, traits and policy asked for, before any prefilter.

        :raises accelsched.errors.InvalidError: naming the extra spec that is wrong
        """
        query = _query(self.flavor, self.image, self.numa(), self.pci)
        if self.group_traits:
            query = dataclasses.replace(query, groups=tuple(map(self._with_traits, query.groups)))
        # An agent that knows nothing of programming would hand out a region as it is.
        needed = {names.RPC_1_1} if bitstreams.asked(self.flavor["extra_specs"]) else set()
        groups = tuple(
            dataclasses.replace(group, provider=self.providers.get(group.suffix)) if group.suffix else group
            for group in query.groups
        )
        required = query.root_required | {*self.host_traits, *needed}
        return dataclasses.replace(query, groups=groups, root_required=required)

    def _with_traits(self, group: RequestGroup) -> RequestGroup:
        traits = tuple(frozenset({trait}) for trait in self.group_traits.get(group.suffix, ()))
        return dataclasses.replace(group, required=(*group.required, *traits))

    def numa(self) -> NumaRequest | None:
        """Return what is asked of NUMA nodes; None when nothing is.

        :raises accelsched.errors.InvalidError: naming the extra spec or image property that is wrong
        """
        return numa_request.parse(self.flavor, self.image_properties)

    @property
    def plain(self) -> bool:
        """Whether nothing but amounts ties it to servers that are placed at the same time."""
        return not self.hints and self.numa() is None

    def affinity(self, group: str) -> Affinity:
        """Return how near to the server's NUMA nodes the devices of a request group must be.

        :raises accelsched.errors.InvalidError: when flavor and image say no such thing, or different things
        """
        said = numa_request.affinity(self.flavor, self.image_properties)
        if said is not None:
            return said
        of_alias = (request.affinity for request, part in pci_devices.groups(self.pci) if part.suffix == group)
        return next(of_alias, "preferred")


def build(
    flavor: wire.FlavorSpec,
    image: wire.ImageSpec | None,
    *,
    project_id: str,
    availability_zone: str | None = None,
    host: str | None = None,
    hypervisor_hostname: str | None = None,
    hints: Mapping[str, Any] | None = None,
    forced: bool = False,
    ignore_hosts: Sequence[str] = (),
    aliases: Mapping[str, Alias] | None = None,
    providers: Mapping[str, str] | None = None,
) -> RequestSpec:
    """Return a request that is known to make sense.

    :param aliases: of PCI devices, by name
    :param providers: uuids of those that are to serve request groups, by suffix

    :raises accelsched.errors.InvalidError: naming the extra spec or image property that is wrong
    """
    spec = RequestSpec(
        project_id,
        flavor,
        image,
        availability_zone,
        host,
        hypervisor_hostname,
        dict(hints or {}),
        forced,
        tuple(ignore_hosts),
        pci_devices.parse(flavor["extra_specs"], aliases or {}),
        providers=dict(providers or {}),
    )
    spec.query()
    spec.affinity("")
    cpu_topology.choose(flavor, spec.image_properties)
    return spec


def check_extra_specs(extra_specs: Mapping[str, str]) -> None:
    """Check the extra specs that mean something to the scheduler.

    :raises accelsched.errors.InvalidError: naming the one that is wrong
    """
    _groups(extra_specs, {}, {})
    pci_devices.asked(extra_specs)


def _query(
    flavor: wire.FlavorSpec, image: wire.ImageSpec | None, numa: NumaRequest | None, pci: Sequence[PciRequest]
) -> CandidateQuery:
    base = {**_cpus(flavor, numa), "MEMORY_MB": flavor["ram_mb"], "DISK_GB": flavor["disk_gb"]}
    groups = _groups(flavor["extra_specs"], base, image["properties"] if image else {})
    groups += [group for _, group in pci_devices.groups(pci)]
    suffixed = [group for group in groups if group.suffix]
    policy = _policy(flavor["extra_specs"])
    if policy is None and len(suffixed) > 1:
        # Placement wants it said; for a flavor the harmless reading is that groups may share a device.
        policy = "none"
    threads = frozenset({numa_request.HYPERTHREADING})
    return CandidateQuery(
        groups=tuple(groups),
        isolate=policy == "isolate",
        root_required=threads if numa and numa.threads == "require" else frozenset(),
        root_forbidden=threads if numa and numa.threads == "isolate" else frozenset(),
    )


def _cpus(flavor: wire.FlavorSpec, numa: NumaRequest | None) -> dict[str, int]:
    """Return the classes that the flavor's CPUs are of."""
    if numa is None or not numa.pins:
        return {"VCPU": flavor["vcpus"]}
    if any(numa_request.CPU_RESOURCES.fullmatch(key) for key in flavor["extra_specs"]):
        return {}  # the extra spec is the amount
    amounts = {
        "VCPU": sum(len(node.shared) for node in numa.nodes),
        "PCPU": sum(len(node.dedicated) for node in numa.nodes),
    }
    return {name: amount for name, amount in amounts.items() if amount}


def _policy(extra_specs: Mapping[str, str]) -> Literal["none", "isolate"] | None:
    match extra_specs.get("group_policy"):
        case None:
            return None
        case "none":
            return "none"
        case "isolate":
            return "isolate"
        case other:
            raise errors.InvalidError(f"extra spec group_policy: {other!r} is neither none nor isolate")


def _groups(
    extra_specs: Mapping[str, str], base: Mapping[str, int], image_properties: Mapping[str, str]
) -> list[RequestGroup]:
    for key, why in numa_request.NOT_SUPPORTED.items():
        if key in extra_specs:
            raise errors.InvalidError(f"extra spec {key}: {why}")
    _policy(extra_specs)
    bitstreams.asked(extra_specs)
    resources: dict[str, dict[str, int]] = defaultdict(dict)
    required: dict[str, set[str]] = defaultdict(set)
    forbidden: dict[str, set[str]] = defaultdict(set)
    resources[""].update(base)
    image_traits = {key: value for key, value in image_properties.items() if key.startswith("trait:")}
    for key, value in [*extra_specs.items(), *image_traits.items()]:
        match = _GROUPED.match(key)
        if match is None:
            continue
        suffix, name = match["suffix"], match["name"]
        if not _NAME.match(name):
            raise errors.InvalidError(f"extra spec {key}: {name!r} must be of capital letters, digits and '_'")
        if match["kind"] == "resources":
            resources[suffix][name] = _amount(key, value)
        elif value == "required":
            required[suffix].add(name)
        elif value == "forbidden":
            forbidden[suffix].add(name)
        else:
            raise errors.InvalidError(f"extra spec {key}: {value!r} is neither required nor forbidden")
    for suffix in sorted(required.keys() | forbidden.keys()):
        if both := required[suffix] & forbidden[suffix]:
            raise errors.InvalidError(f"trait {min(both)} is both required and forbidden")
    # The host's own part first: it removes most hosts most cheaply.
    groups = [
        RequestGroup(
            suffix=suffix,
            # An amount of 0 takes back what the flavor's size asked for, as in Nova.
            resources={name: amount for name, amount in resources[suffix].items() if amount},
            required=tuple(frozenset({trait}) for trait in sorted(required[suffix])),
            forbidden=frozenset(forbidden[suffix]),
        )
        for suffix in sorted(resources.keys() | required.keys() | forbidden.keys())
    ]
    # A part all of whose amounts were taken back asks for nothing.
    return [group for group in groups if not group.suffix or group.resources or group.required]


def _amount(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > _MOST:
        raise errors.InvalidError(f"extra spec {key}: {value!r} is not a whole number from 0 to {_MOST}")
    return int(value)
