# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a request and the configuration require, one by one, and the request without each.

A requirement is given up where it was made: in the flavor, the image, the hints, the list of filters. So a request
without it is one that could be made, and is decided about like any other.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from accelsched import errors
from accelsched.placement.candidates import RequestGroup
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.plugins import Plugins
from accelsched.scheduler.request import RequestSpec

_CPUS = ("VCPU", "PCPU")
# How a flavor and an image ask for NUMA nodes, pinned CPUs and pages.
_NUMA = re.compile(r"hw[:_](numa_|cpu_|pci_numa|mem_page_size)")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A request with what it is decided by."""

    request: RequestSpec
    facts: Facts
    plugins: Plugins

    def ask(self, **changes: Any) -> Trial:
        """Return the same with fields of the request changed."""
        return dataclasses.replace(self, request=dataclasses.replace(self.request, **changes))

    def extra_specs(self, specs: Mapping[str, str]) -> Trial:
        """Return the same with other extra specs."""
        return self.ask(flavor={**self.request.flavor, "extra_specs": dict(specs)})


@dataclasses.dataclass(frozen=True)
class Requirement:
    """Something without which the request might find a host.

    :ivar what: for people: ``MEMORY_MB``, ``trait CUSTOM_X of group 1``, ``filter ComputeFilter``
    :ivar without: the trial without it; with an amount, the trial that asks for no more than that
    :ivar asked: the amount, None when it is not about one
    :ivar least: the least amount that it may be brought down to
    :ivar resource_class: what the amount is of; None for a number of groups or devices
    :ivar times: how many groups ask for the amount each
    :ivar monotone: whether a host that it rules out when all others are given up is ruled out when they are not
    """

    what: str
    without: Callable[[Trial, int], Trial]
    asked: int | None = None
    least: int = 0
    resource_class: str | None = None
    times: int = 1
    monotone: bool = True


def of(trial: Trial) -> list[Requirement]:
    """Return all requirements of a request: amounts first, what operators set up last."""
    request = trial.request
    found = [*_own(request), *_groups(request), *_pci(request), *_traits(request)]
    if request.query().isolate and sum(bool(group.suffix) for group in request.query().groups) > 1:
        found.append(Requirement("group_policy isolate", lambda t, _: _with_spec(t, "group_policy", "none")))
    if request.numa() is not None:
        found.append(Requirement("NUMA nodes, pinning and pages", _without_numa))
    if request.availability_zone is not None:
        zone = request.availability_zone
        found.append(Requirement(f"availability zone {zone}", lambda t, _: t.ask(availability_zone=None)))
    if not request.forced:
        if request.host is not None:
            found.append(Requirement(f"host {request.host}", lambda t, _: t.ask(host=None)))
        if request.hypervisor_hostname is not None:
            name = request.hypervisor_hostname
            found.append(Requirement(f"hypervisor {name}", lambda t, _: t.ask(hypervisor_hostname=None)))
    if request.ignore_hosts:
        found.append(Requirement("hosts to be ignored", lambda t, _: t.ask(ignore_hosts=())))
    if request.providers:
        found.append(Requirement("the devices that were named", lambda t, _: t.ask(providers={})))
    found += [_hint(name) for name in request.hints]
    return [*found, *_plugins(trial)]


def _own(request: RequestSpec) -> Iterator[Requirement]:
    """Yield the amounts that the flavor asks for by its size."""
    query = request.query()
    asked = {name for group in query.groups if not group.suffix for name in group.resources}
    for field, names in (("vcpus", _CPUS), ("ram_mb", ("MEMORY_MB",)), ("disk_gb", ("DISK_GB",))):
        amount = request.flavor[field]  # type: ignore[literal-required]
        said = any(f"resources:{name}" in request.flavor["extra_specs"] for name in names)
        name = next((name for name in names if name in asked), None)
        if not amount or said or name is None:
            continue

        def without(trial: Trial, enough: int, field: str = field) -> Trial:
            return trial.ask(flavor={**trial.request.flavor, field: enough})

        yield Requirement(name, without, amount, resource_class=name)


def _groups(request: RequestSpec) -> Iterator[Requirement]:
    """Yield the amounts that extra specs ask for, of groups that are alike together, and how many such groups."""
    specs = request.flavor["extra_specs"]
    for groups in _families(request):
        suffixes = tuple(group.suffix for group in groups)
        for name, amount in groups[0].resources.items():
            keys = [f"resources{suffix}:{name}" for suffix in suffixes]
            if not all(key in specs for key in keys):
                continue  # the flavor's size, or an alias of PCI devices

            def without(trial: Trial, enough: int, keys: list[str] = keys) -> Trial:
                left = {key: value for key, value in trial.request.flavor["extra_specs"].items() if key not in keys}
                return trial.extra_specs({**left, **dict.fromkeys(keys, str(enough))})

            yield Requirement(name + _of(suffixes), without, amount, resource_class=name, times=len(suffixes))
        if len(suffixes) > 1 and all(f"resources{s}:{n}" in specs for s in suffixes for n in groups[0].resources):

            def fewer(trial: Trial, enough: int, suffixes: tuple[str, ...] = suffixes) -> Trial:
                gone = tuple(f"{kind}{suffix}:" for suffix in suffixes[enough:] for kind in ("resources", "trait"))
                specs = trial.request.flavor["extra_specs"]
                return trial.extra_specs({key: value for key, value in specs.items() if not key.startswith(gone)})

            yield Requirement(f"groups like {suffixes[0]}", fewer, len(suffixes), least=1)


def _families(request: RequestSpec) -> list[list[RequestGroup]]:
    families: dict[object, list[RequestGroup]] = defaultdict(list)
    for group in request.query().groups:
        families[bool(group.suffix), group.alike()].append(group)
    return list(families.values())


def _of(suffixes: tuple[str, ...]) -> str:
    if suffixes == ("",):
        return ""
    return f" of group {suffixes[0]}" if len(suffixes) == 1 else f" of groups {', '.join(suffixes)}"


def _pci(request: RequestSpec) -> Iterator[Requirement]:
    for index, one in enumerate(request.pci):

        def without(trial: Trial, enough: int, index: int = index) -> Trial:
            pci = list(trial.request.pci)
            pci[index] = dataclasses.replace(pci[index], count=enough)
            return trial.ask(pci=tuple(pci))

        yield Requirement(f"PCI devices {one.name}", without, one.count)


def _traits(request: RequestSpec) -> Iterator[Requirement]:
    """Yield the traits that flavor and image require or forbid, of groups that are alike together."""
    for groups in _families(request):
        suffixes = tuple(group.suffix for group in groups)
        traits = [*sorted(trait for any_of in groups[0].required for trait in any_of), *sorted(groups[0].forbidden)]
        for trait in traits:
            keys = frozenset(f"trait{suffix}:{trait}" for suffix in suffixes)
            if not keys & {*request.flavor["extra_specs"], *request.image_properties}:
                continue

            def without(trial: Trial, _: int, keys: frozenset[str] = keys) -> Trial:
                return _without_keys(trial, keys.__contains__)

            word = "forbidden trait" if trait in groups[0].forbidden else "trait"
            yield Requirement(f"{word} {trait}{_of(suffixes)}", without)


def _without_numa(trial: Trial, _: int) -> Trial:
    return _without_keys(trial, lambda key: _NUMA.match(key) is not None)


def _without_keys(trial: Trial, gone: Callable[[str], bool]) -> Trial:
    """Return a trial without some extra specs and image properties."""
    specs = {key: value for key, value in trial.request.flavor["extra_specs"].items() if not gone(key)}
    image = trial.request.image
    if image is not None and any(map(gone, image["properties"])):
        properties = {key: value for key, value in image["properties"].items() if not gone(key)}
        trial = trial.ask(image={**image, "properties": properties})
    return trial.extra_specs(specs)


def _with_spec(trial: Trial, key: str, value: str) -> Trial:
    return trial.extra_specs({**trial.request.flavor["extra_specs"], key: value})


def _hint(name: str) -> Requirement:
    def without(trial: Trial, _: int) -> Trial:
        left = {key: value for key, value in trial.request.hints.items() if key != name}
        facts = dataclasses.replace(trial.facts, group=None) if name == "group" else trial.facts
        return dataclasses.replace(trial, facts=facts).ask(hints=left)

    return Requirement(f"hint {name}", without)


def _plugins(trial: Trial) -> Iterator[Requirement]:
    """Yield the prefilters and filters that mean something to a request without zone, host and hints.

    What they make of these is given up with these.
    """
    bare = trial.ask(availability_zone=None, host=None, hypervisor_hostname=None, hints={}, ignore_hosts=()).request
    facts = dataclasses.replace(trial.facts, group=None)
    query = bare.query()
    for prefilter in trial.plugins.prefilters:
        try:
            idle = prefilter.apply(bare, query, facts) == query
        except errors.InvalidError:
            idle = False
        if not idle:
            # Some open hosts to those who require more.
            name = f"prefilter {type(prefilter).__name__}"
            yield Requirement(name, _dropping("prefilters", prefilter), monotone=False)
    for filter_ in trial.plugins.filters:
        yield Requirement(f"filter {type(filter_).__name__}", _dropping("filters", filter_))


def _dropping(kind: str, plugin: object) -> Callable[[Trial, int], Trial]:
    def without(trial: Trial, _: int) -> Trial:
        left = tuple(one for one in getattr(trial.plugins, kind) if one is not plugin)
        return dataclasses.replace(trial, plugins=dataclasses.replace(trial.plugins, **{kind: left}))

    return without
